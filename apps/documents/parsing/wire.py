"""How parent and sandboxed child speak: length-prefixed messages, big bodies in scratch files.

A message is an 8-byte head (two unsigned 32-bit lengths, network order), a JSON object and a body. A body
over `INLINE` bytes is a file in the scratch directory instead, named in the JSON: pipes stay short, and
neither side holds two copies of a large document in pipe buffers.
"""

from __future__ import annotations

import json
import struct
import sys
from array import array
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from apps.documents.parsing.types import KINDS, MAX_NOTES, NOTE_LENGTH, Block, Parsed, ParseError

# Request and JSON together stay under a pipe's 64 KiB, so that writing to a stuck child cannot block.
INLINE = 32 * 1024
HEAD = struct.Struct("!II")
MAX_META = 64 * 1024
_ITEM = 5  # kind, start, end, level, page

Meta = dict[str, Any]


def pack(meta: Meta, body: bytes = b"") -> bytes:
    encoded = json.dumps(meta, separators=(",", ":")).encode()
    return HEAD.pack(len(encoded), len(body)) + encoded + body


def receive(stream: BinaryIO) -> tuple[Meta, bytes] | None:
    """One message from a blocking stream (the child's side), or None at its end."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    meta_length, body_length = HEAD.unpack(head)
    return json.loads(stream.read(meta_length)), stream.read(body_length)


def spill(meta: Meta, body: bytes, path: Path) -> tuple[Meta, bytes]:
    """Move a body that is too big for the pipe to `path`."""
    if len(body) <= INLINE:
        return meta, body
    path.write_bytes(body)
    return {**meta, "file": path.name}, b""


def encode_parsed(parsed: Parsed) -> tuple[Meta, bytes]:
    """Blocks as packed 32-bit integers followed by the text as UTF-8."""
    kinds = {kind: number for number, kind in enumerate(KINDS)}
    numbers = ((kinds[kind], start, end, level, page or 0) for kind, start, end, level, page in parsed.blocks)
    packed = array("i", chain.from_iterable(numbers))
    meta = {
        "ok": True,
        "blocks": len(parsed.blocks),
        "media_type": parsed.media_type,
        "title": parsed.title[:1000] if parsed.title else None,
        "parser": parsed.parser,
        "notes": [note[:NOTE_LENGTH] for note in parsed.notes[:MAX_NOTES]],
        "order": sys.byteorder,
    }
    return meta, packed.tobytes() + parsed.text.encode("utf-8")


def decode_parsed(meta: Meta, body: bytes) -> Parsed:
    """The child's answer, believed only as far as it checks out. Raises ParseError("crashed")."""
    try:
        packed = array("i")
        edge = int(meta["blocks"]) * _ITEM * packed.itemsize
        whole = memoryview(body)
        packed.frombytes(whole[:edge])
        text = str(whole[edge:], "utf-8")
        blocks: list[Block] = []
        last, length = 0, len(text)
        numbers = iter(packed)
        for kind, start, end, level, page in zip(*[numbers] * _ITEM, strict=True):
            if not (last <= start < end <= length and 0 <= kind < len(KINDS) and 0 <= level <= 6):
                raise ValueError("blocks out of order")
            blocks.append(Block(KINDS[kind], start, end, level, page or None))
            last = end
        title = str(meta["title"]) if meta["title"] else None
        if not text or text.isspace() or body.find(b"\x00", edge) >= 0:  # in a wide text NUL is slow to find
            raise ValueError("text")
        notes = [str(note)[:NOTE_LENGTH] for note in list(meta["notes"])[:MAX_NOTES]]
        return Parsed(text, blocks, str(meta["media_type"])[:255], title, str(meta["parser"])[:64], notes)
    except (KeyError, TypeError, ValueError):
        raise ParseError("crashed", "The sandboxed parser gave an invalid answer.") from None


def decode_error(meta: Meta) -> ParseError:
    code = str(meta.get("code"))
    detail = str(meta.get("detail"))[:500]
    return ParseError(code, detail) if code in ParseError.CODES else ParseError("crashed", "Invalid answer.")
