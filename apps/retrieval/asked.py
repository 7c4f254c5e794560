"""What searches and questions have in common: of which documents, how fresh, or of which time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from apps.access.problems import invalid

from .filters import compile_filter

Versions = Sequence[tuple[UUID, int]]


def asked(
    *,
    filters: Mapping[str, Any] | None,
    consistency: str | None,
    min_versions: Versions | None,
    as_of: datetime | None,
    partial: bool = False,
) -> dict[str, Any]:
    """The fields of a SearchQuery. Raises Problem 400, 422."""
    if partial and (consistency == "strong" or min_versions):
        raise invalid("/partial", "Who asks for all that was accepted cannot be answered by a part.")
    pinned, rest = _take_version(filters or {})
    if pinned and as_of:
        raise invalid("/as_of", "as_of and the version of a document name two times; one is enough.")
    if pinned or as_of:
        for name, said in (("min_versions", min_versions), ("consistency", consistency == "strong")):
            if said:
                raise invalid(f"/{name}", f"{name} is about the present; what is past is as old as it is.")
    return {
        "filter": compile_filter(rest),
        "consistency": consistency or "bounded",
        "min_versions": tuple(min_versions or ()),
        "as_of": as_of,
        "pinned": pinned,
        "partial": partial,
    }


def _take_version(filters: Mapping[str, Any]) -> tuple[tuple[UUID, int] | None, dict[str, Any]]:
    """(document, version) of filters that name one version of one document, and the filters without them."""
    rest = dict(filters)
    if "version" not in rest:
        return None, rest
    version, document_id = (_value(rest.pop(name, None)) for name in ("version", "document_id"))
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version < 2**63:
        raise invalid("/filters/version", "A version is a whole number from 1; only one can be asked for.")
    try:
        return (UUID(document_id), version), rest
    except (ValueError, TypeError, AttributeError):
        raise invalid(
            "/filters/version", "A version is that of one document: name its document_id beside it."
        ) from None


def _value(condition: Any) -> Any:
    """What a field is to equal."""
    return condition["$eq"] if isinstance(condition, Mapping) and condition.keys() == {"$eq"} else condition
