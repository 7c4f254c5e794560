"""Documents to normalised text with block structure.

`parse` runs in the process that calls it; hostile input belongs in `apps.documents.parsing.sandbox`,
whose warm child calls `parse` under resource limits. Only what `parse_simple` takes needs no sandbox. To add a
format: write one module with `parse(data, *, media_type, charset) -> Parsed` and add one line to
`formats.FORMATS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from apps.documents.parsing import nesting, plain
from apps.documents.parsing.data import source
from apps.documents.parsing.encoding import binary_kind, byte_order_mark
from apps.documents.parsing.formats import PACKAGE, Format, detect, known
from apps.documents.parsing.normalise import line_feeds
from apps.documents.parsing.types import Block, Parsed, ParseError

__all__ = ["Block", "ParseError", "Parsed", "parse", "parse_simple"]

SIMPLE_BYTES = 4 * 1024 * 1024
_SIMPLE: dict[str, Any] = {"plain": plain, "data.source": source}
_CONTROLS = bytes({*range(32), 127} - {*b"\t\n\v\f\r"})


def parse_simple(data: bytes, *, media_type: str | None = None, filename: str | None = None) -> Parsed | None:
    """What `parse` gives for a plain text or source code that is not very long, None for anything else. It is in UTF-8,
    or has a mark that says what it is in.

    Reading one is decoding it and splitting it at blank lines: no parser that could hang, grow or be subverted, and
    little more work than to check what a sandboxed child answers.
    """
    if not data or len(data) > SIMPLE_BYTES:
        return None
    try:
        found, effective_type, _ = detect(data, media_type=media_type, filename=filename)
    except ParseError:
        return None
    return _simple(data, found, effective_type)


def _simple(data: bytes, fmt: Format, media_type: str) -> Parsed | None:
    module = _SIMPLE.get(fmt.module)
    if module is None or binary_kind(data):
        return None
    try:
        if byte_order_mark(data):
            found: Parsed = module.parse(data, media_type=media_type, charset=None)
        elif len(data.translate(None, _CONTROLS)) == len(data):
            found = module.read_clean(line_feeds(data.decode()), media_type=media_type)
        else:
            return None
    except (ParseError, UnicodeDecodeError):
        return None
    return None if not found.text or found.text.isspace() else found


def parse(data: bytes, *, media_type: str | None = None, filename: str | None = None) -> Parsed:
    """Text and blocks of one document, its format taken from content, then `media_type`, then `filename`.

    `media_type` may carry a charset parameter. Raises ParseError and MemoryError, nothing else: a parser's
    own failure becomes ParseError("malformed"). The text has at least one non-space character.
    """
    if not data:
        raise ParseError("empty", "The file is empty.")
    fmt, effective_type, charset = detect(data, media_type=media_type, filename=filename)
    try:
        with nesting.document(len(data)):
            if simple := _simple(data, fmt, effective_type):
                return simple
            if fmt.container:
                effective_type = import_module(f"{PACKAGE}.{fmt.container}").identify(data)
                fmt = known(effective_type)
            parsed: Parsed = import_module(f"{PACKAGE}.{fmt.module}").parse(
                data, media_type=effective_type, charset=charset
            )
    except (ParseError, MemoryError):
        raise
    except RecursionError:
        raise ParseError("malformed", f"The {fmt.label} content is nested too deeply.") from None
    except Exception as error:
        raise ParseError("malformed", f"The {fmt.label} content could not be parsed.") from error
    if not parsed.text or parsed.text.isspace():
        raise ParseError("empty", f"The {fmt.label} content has no text.")
    return parsed
