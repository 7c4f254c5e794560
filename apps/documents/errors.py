"""Why work on a document failed, or stopped."""

from __future__ import annotations

from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError

from apps.access.tenancy import is_conflict, lost_a_node

from .embedding import EmbeddingError
from .parsing import ParseError

ABOUT_THE_SANDBOX = frozenset({"crashed", "unavailable"})  # these may not be the document's fault
AWAY = "shards_unavailable"  # no try of the job's: it begins again when the node is back
ABOUT_THE_CONTENT = ParseError.CODES - ABOUT_THE_SANDBOX


class IngestError(Exception):
    """Ingestion failed: snake_case code, one sentence, and whether trying again may help."""

    def __init__(self, code: str, detail: str, *, retryable: bool = False) -> None:
        super().__init__(detail)
        self.code, self.detail, self.retryable = code, detail, retryable


class SpacesChanged(Exception):
    """The collection's embedding spaces are others by now than those that vectors were made for: make them again."""


class LostLease(Exception):
    """Another worker holds the job now, or it was cancelled: leave it alone."""


def describe(error: BaseException) -> tuple[dict[str, Any], bool]:
    """({code, detail} for the ledger, may a retry help?)."""
    match error:
        case IngestError() | EmbeddingError():
            return {"code": error.code, "detail": str(error)}, error.retryable
        case ParseError():
            return {"code": error.code, "detail": error.detail}, error.code in ABOUT_THE_SANDBOX
        case OperationalError() if is_conflict(error):
            return {"code": "busy", "detail": "Other work was changing the same documents."}, True
        case DatabaseError() if lost_a_node(error):
            return {"code": AWAY, "detail": "A part of the database could not be reached."}, True
        case OperationalError() | InterfaceError():
            return {"code": "database_unavailable", "detail": str(error).strip().splitlines()[0]}, True
        case MemoryError():
            return {"code": "out_of_memory", "detail": "The worker ran out of memory."}, True
    return {"code": "internal", "detail": f"{type(error).__name__}: {error}"[:2000]}, True
