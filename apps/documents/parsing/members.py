"""Documents inside a document: attachments of a message, members of an archive."""

from __future__ import annotations

from apps.documents.parsing import parse
from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.types import ParseError

#: Errors of a member that are errors of the whole.
_FATAL = frozenset({"archive_bomb", "too_large"})


def add(built: Builder, data: bytes, *, name: str, media_type: str | None = None, level: int = 1) -> bool:
    """Read a member and put it under a heading of its name, its own headings below that one.

    A member that cannot be read becomes a note. Returns whether it was read. Raises ParseError "archive_bomb" or
    "too_large", and MemoryError.
    """
    try:
        part = parse(data, media_type=media_type, filename=name)
    except ParseError as error:
        if error.code in _FATAL:
            raise
        built.note(f"{inline(name)[-80:] or 'A part'} was left out: {error.detail}")
        return False
    page = built.page
    built.page = page or (part.blocks[0].page if part.blocks else None)  # its name stands on its first page
    built.heading(name, level)
    built.page = page
    built.graft(part, under=level)
    return True
