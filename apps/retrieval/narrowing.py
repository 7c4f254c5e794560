"""What a filter asks of the documents' terms (documents/attributes.py), so that an index finds those that may pass.

Only what metadata must have can be asked: `$not`, `$ne`, `$nin`, `$exists: false`, lists and objects as values, and the
fields that are no metadata ask nothing. Of a comparison of texts only what both limits begin with is asked.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Mapping
from typing import Any

from apps.documents.attributes import SEVERAL, AllOf, AnyOf, Question, Term, between, value

WIDEST = 64  # of the characters after a common beginning: a wider range is not told apart
LIMITS = {"$gt": 0, "$gte": 0, "$lt": 1, "$lte": 1}  # lower, upper


def narrowed(filters: Mapping[str, Any]) -> Question | None:
    """What a filter that compile_filter accepts asks; None: nothing, all documents may pass."""
    return _all(_part(name, given) for name, given in filters.items())


def _part(name: str, given: Any) -> Question | None:
    if name == "$and":
        return _all(map(narrowed, given))
    if name == "$or":
        parts = [narrowed(each) for each in given]
        return AnyOf(tuple(part for part in parts if part)) if all(parts) else None
    if not name.startswith("metadata."):
        return None
    path = name.removeprefix("metadata.")
    is_operators = isinstance(given, Mapping) and any(key.startswith("$") for key in given)
    return _field(path, given if is_operators else {"$eq": given})


def _field(path: str, conditions: Mapping[str, Any]) -> Question | None:
    parts: list[Question | None] = []
    numbers: list[list[float]] = [[], []]
    texts: list[list[str]] = [[], []]
    for operator, operand in conditions.items():
        if operator in LIMITS:
            (texts if isinstance(operand, str) else numbers)[LIMITS[operator]].append(operand)
        elif operator == "$eq" and not isinstance(operand, list | Mapping):
            parts.append(Term(path, value(operand)))
        elif operator == "$in" and operand:
            parts.append(AnyOf(tuple(Term(path, value(each)) for each in operand)))
        elif operator == "$prefix":
            parts.append(Term(path, f"t{operand}", begins=True))
        elif operator == "$exists" and operand:
            parts.append(Term(path, "", begins=True))
    if any(numbers):
        parts.append(between(path, max(numbers[0], default=None), min(numbers[1], default=None)))
    if any(texts):
        parts.append(_texts(path, max(texts[0], default=""), min(texts[1], default="")))
    return _all(parts)


def _texts(path: str, low: str, high: str) -> Question:
    """Texts from low to high by code points; an empty one is no limit. A list may hold one text beyond each limit."""
    same = os.path.commonprefix([low, high])  # noqa: RUF071  of texts, not of paths
    several = Term(path, SEVERAL)
    first, last = low[len(same) :][:1], high[len(same) :][:1]
    if first and last and ord(first) < ord(last) <= ord(first) + WIDEST:
        letters = map(chr, range(ord(first), ord(last) + 1))
        return AnyOf((*(Term(path, f"t{same}{letter}", begins=True) for letter in letters if _is(letter)), several))
    return AnyOf((Term(path, f"t{same}", begins=True), several))


def _is(letter: str) -> bool:
    """Not the half of a surrogate pair."""
    return not "\ud800" <= letter <= "\udfff"


def _all(parts: Iterable[Question | None]) -> Question | None:
    asked = tuple(part for part in parts if part)
    return asked[0] if len(asked) == 1 else AllOf(asked) if asked else None
