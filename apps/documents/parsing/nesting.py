"""How much may hide in one document: attachments of attachments, archives in archives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from apps.documents.parsing.types import ParseError

MAX_DEPTH = 5
MAX_DOCUMENTS = 10_000
MAX_BYTES = 1024**3


@dataclass(slots=True)
class _Spent:
    depth: int = 0
    documents: int = 0
    bytes: int = 0


_spent: ContextVar[_Spent | None] = ContextVar("spent", default=None)


@contextmanager
def document(size: int) -> Iterator[None]:
    """Around the reading of a document of `size` bytes; one inside another counts towards the outermost.

    Raises ParseError("archive_bomb") past the limits.
    """
    spent = _spent.get()
    token = None
    if spent is None:
        spent = _Spent()
        token = _spent.set(spent)
    spent.depth += 1
    spent.documents += 1
    spent.bytes += size
    try:
        if spent.depth > MAX_DEPTH:
            raise ParseError("archive_bomb", f"Documents are nested more than {MAX_DEPTH} deep.")
        if spent.documents > MAX_DOCUMENTS or spent.bytes > MAX_BYTES:
            raise ParseError("archive_bomb", f"More than {MAX_DOCUMENTS} documents or {MAX_BYTES} bytes are inside it.")
        yield
    finally:
        spent.depth -= 1
        if token is not None:
            _spent.reset(token)
