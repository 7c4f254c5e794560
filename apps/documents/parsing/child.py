"""The sandboxed process: `python -m apps.documents.parsing.child '<settings as JSON>'`.

Reads requests from stdin, answers on the stdout it was started with, and stays warm between documents.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from apps.documents.parsing import formats, isolate, ocr, wire
from apps.documents.parsing.types import Parsed, ParseError

# Objects: a tree of a million is searched for garbage a few times while it grows, not a thousand times.
_COLLECT_AFTER = (50_000, 20, 20)


def main() -> None:
    """Lock the process in, say hello, then answer one request after another until stdin ends."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    isolate.die_with_parent(settings["parent"])
    # What a library prints must not end up in the middle of an answer.
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    scratch = Path(settings["scratch"])
    module, _, name = settings["parser"].partition(":")
    parse: Callable[..., Parsed] = getattr(import_module(module), name)
    for warm in formats.WARM:
        import_module(f"{formats.PACKAGE}.{warm}")
    isolate.limit(
        memory_bytes=settings["memory_bytes"],
        output_bytes=settings["output_bytes"],
        open_files=settings["open_files"],
        cpu_seconds_total=settings["cpu_seconds"] * (settings["documents"] + 1) + 10,
    )
    reader = ocr.engine()
    achieved = isolate.isolate(
        str(scratch),
        programs=[reader.program] if reader else (),
        readable=[str(reader.models)] if reader else (),
    )

    def go_on() -> None:
        """Say that a picture is about to be read, which takes its own time."""
        isolate.arm_cpu(settings["cpu_seconds"])
        answers.write(wire.pack({"going_on": True}))
        answers.flush()

    ocr.before_each = go_on
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    answers.write(wire.pack({"ok": True, "isolation": achieved}))
    answers.flush()
    while (request := wire.receive(sys.stdin.buffer)) is not None:
        isolate.arm_cpu(settings["cpu_seconds"])
        meta, body = _answer(parse, request, scratch)
        del request
        answers.write(wire.pack(meta, body))
        answers.flush()
        if meta.get("fatal"):
            return


def _answer(parse: Callable[..., Parsed], request: tuple[wire.Meta, bytes], scratch: Path) -> tuple[wire.Meta, bytes]:
    meta, data = request
    try:
        if meta.get("file"):
            data = (scratch / meta["file"]).read_bytes()
        parsed = parse(data, media_type=meta["media_type"], filename=meta["filename"])
        del data
        head, body = wire.encode_parsed(parsed)
        return wire.spill(head, body, scratch / "answer")
    except ParseError as error:
        return {"ok": False, "code": error.code, "detail": error.detail}, b""
    except MemoryError:
        return _fatal("too_large", "The document needs more memory than parsing may use.")
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EFBIG:  # past RLIMIT_FSIZE
            return _fatal("too_large", "The document's text is larger than parsing may write.")
        return _fatal("crashed", "The parser failed.")


def _fatal(code: str, detail: str) -> tuple[wire.Meta, bytes]:
    return {"ok": False, "code": code, "detail": detail, "fatal": True}, b""


if __name__ == "__main__":
    main()
