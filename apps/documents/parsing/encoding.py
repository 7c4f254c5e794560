"""Bytes to text for formats without a declared, trustworthy encoding.

Evidence is weighed in the order of how rarely it is wrong: byte order mark, NUL pattern of UTF-16/32,
escape sequences of ISO-2022, valid UTF-8, what the sender declared, then a statistical guess.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable

from apps.documents.parsing.types import ParseError

SAMPLE = 64 * 1024

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark starts with the UTF-16 one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_BINARY_MAGIC = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an OLE compound file"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"\x7fELF", "an executable"),
    (b"MZ\x90\x00", "an executable"),
    (b"{\\rtf", "an RTF document"),
    (b"%!PS-", "a PostScript program"),
    (b"SQLite format 3\x00", "an SQLite database"),
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MAX_CONTROL_SHARE = 0.02
_MAX_REPLACED_SHARE = 0.01

# WHATWG Encoding Standard, section 4.2: these labels mean windows-1252 / windows-1254 on the web.
_WEB_ALIASES = {"iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254"}
# Single-byte Latin code pages that a guesser confuses with one another on short text.
_LATIN = {"cp1250", "cp1252", "cp1254", "cp1257", "cp1258", "cp437", "cp850", "cp858", "cp775", "hp_roman8"}
_LATIN |= {f"iso8859_{n}" for n in (2, 3, 4, 9, 10, 13, 14, 15, 16)} | {"latin_1", "mac_roman", "mac_latin2"}
_LATIN |= {
    "mac_iceland",
    "mac_turkish",
    "cp1140",
    "cp500",
    "cp037",
    "cp273",
    "cp852",
    "cp861",
    "cp863",
    "cp865",
}


def binary_kind(data: bytes) -> str | None:
    """Name the well-known binary format that `data` starts with ("a ZIP archive"), or None."""
    return next((name for magic, name in _BINARY_MAGIC if data.startswith(magic)), None)


def codec_of(label: str | None) -> str | None:
    """Python codec name for a charset label as senders write it, or None when it is not a text codec."""
    if not label:
        return None
    try:
        name = codecs.lookup(label.strip().strip("\"'").lower()).name
        b"".decode(name)
    except (LookupError, ValueError, UnicodeError):
        return None
    return _WEB_ALIASES.get(name, name)


def byte_order_mark(data: bytes) -> tuple[str, int] | None:
    """(codec, length of the mark) when `data` starts with a byte order mark."""
    return next(((name, len(bom)) for bom, name in _BOMS if data.startswith(bom)), None)


def decode(data: bytes, *, declared: Iterable[str | None] = ()) -> str:
    """Text of `data`; `declared` are charset labels in falling order of trust.

    Raises ParseError("unsupported") for binary content and for text in no recognisable encoding.
    """
    if kind := binary_kind(data):
        raise ParseError("unsupported", f"The content is {kind}, not text.")
    if bom := byte_order_mark(data):
        # A truncated last character must not lose the document, hence "replace" under a mark.
        return data[bom[1] :].decode(bom[0], "replace")
    if (wide := _wide_codec(data)) and (text := _strict(data, wide)) is not None:
        return text
    head = data[:SAMPLE]
    if head and len(_CONTROL.findall(head)) > max(2, _MAX_CONTROL_SHARE * len(head)):
        raise ParseError("unsupported", "The content is binary, not text.")
    if b"\x1b$" in head and (text := _strict(data, "iso2022_jp_2")) is not None:
        return text
    if (text := _strict(data, "utf-8")) is not None:
        return text
    for label in declared:
        codec = codec_of(label)
        if codec and (text := _strict(data, codec)) is not None:
            return text
    return _guess(data)


def _strict(data: bytes, codec: str) -> str | None:
    try:
        return data.decode(codec)
    except (UnicodeError, LookupError, ValueError):
        return None


def _wide_codec(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, seen by where the zero bytes of its ASCII characters fall."""
    head = data[: SAMPLE - SAMPLE % 4]
    head = head[: len(head) - len(head) % 2]
    if len(head) < 4 or b"\x00" not in head:
        return None
    zeros = [head[lane::4].count(0) / max(1, len(head[lane::4])) for lane in range(4)]
    if len(data) % 4 == 0:
        if zeros[0] > 0.95 and zeros[1] > 0.95 and zeros[3] < 0.05:
            return "utf-32-be"
        if zeros[3] > 0.95 and zeros[2] > 0.95 and zeros[0] < 0.05:
            return "utf-32-le"
    even, odd = (zeros[0] + zeros[2]) / 2, (zeros[1] + zeros[3]) / 2
    if even > 0.1 and odd < 0.01:
        return "utf-16-be"
    if odd > 0.1 and even < 0.01:
        return "utf-16-le"
    return None


def _guess(data: bytes) -> str:
    """A statistical guess on a sample, western European where the guesser finds no real difference."""
    # Imported here: its tables cost more than the rest of a child's start, and most text is UTF-8.
    from charset_normalizer import from_bytes

    if len(data) <= SAMPLE:
        sample = data
    else:  # the lines with high bytes carry all the evidence, wherever they are
        first = next((m.start() for m in re.finditer(rb"[\x80-\xff]", data)), 0)
        sample = data[max(0, first - SAMPLE // 4) : first + SAMPLE]
    matches = from_bytes(sample)
    best = matches.best()
    codec = best.encoding if best else "cp1252"
    if best and codec in _LATIN:
        western = next((m for m in matches if m.encoding == "cp1252" or "cp1252" in m.could_be_from_charset), None)
        if western is None or western.coherence >= best.coherence - 0.1 or len(data) < 256:
            codec = "cp1252"
    for candidate in (codec, "cp1252"):
        if (text := _strict(data, candidate)) is not None:
            return text
    text = data.decode(codec, "replace")
    if text.count("\ufffd") > _MAX_REPLACED_SHARE * len(text):
        raise ParseError("unsupported", "The text is in no recognisable character encoding.")
    return text
