"""Documents to normalised text with block structure.

`parse` runs in the process that calls it; hostile input belongs in `apps.documents.parsing.sandbox`,
whose warm child calls `parse` under resource limits. To add a format: write one module with
`parse(data, *, media_type, charset) -> Parsed` and add one line to `formats.FORMATS`.
"""

from __future__ import annotations

from importlib import import_module

from apps.documents.parsing.formats import PACKAGE, detect
from apps.documents.parsing.types import Block, Parsed, ParseError

__all__ = ["Block", "ParseError", "Parsed", "parse"]


def parse(data: bytes, *, media_type: str | None = None, filename: str | None = None) -> Parsed:
    """Text and blocks of one document, its format taken from content, then `media_type`, then `filename`.

    `media_type` may carry a charset parameter. Raises ParseError and MemoryError, nothing else: a parser's
    own failure becomes ParseError("malformed"). The text has at least one non-space character.
    """
    if not data:
        raise ParseError("empty", "The file is empty.")
    fmt, effective_type, charset = detect(data, media_type=media_type, filename=filename)
    parser = import_module(f"{PACKAGE}.{fmt.module}")
    try:
        parsed: Parsed = parser.parse(data, media_type=effective_type, charset=charset)
    except (ParseError, MemoryError):
        raise
    except RecursionError:
        raise ParseError("malformed", f"The {fmt.label} content is nested too deeply.") from None
    except Exception as error:
        raise ParseError("malformed", f"The {fmt.label} content could not be parsed.") from error
    if not parsed.text or parsed.text.isspace():
        raise ParseError("empty", f"The {fmt.label} content has no text.")
    return parsed
