"""Metadata as terms of a tsvector, by which filters find documents through an index.

Each value of a document's metadata is a term: its tenant, its path, `=`, its type and the value. The index is a GIN one
and the operator `@@`, which may be used before the tenant wall's own condition (ADR 1) and has real statistics; other
operators of JSONB may not, and have none (ADR 11). Equal values are equal terms, texts that begin alike are terms that
begin alike, and numbers are written so that a range of them is a few common beginnings. A question to the terms finds
all documents that a filter holds for, and maybe others: whoever asks checks the filter itself as well.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

MAX_TERMS = 1_000  # of a document; one with more is found by every question
MAX_LENGTH = 200  # of a term in characters; a tsvector's may have 2 KB
LARGEST, SMALLEST = 1e300, 1e-300  # what lies beyond is written like these
PRECISION = 8  # hexadecimal digits to which a range is exact: numbers that differ by one in a million
HEX = "0123456789abcdef"
EVERYTHING, SEVERAL = "*", "["


@dataclass(frozen=True, slots=True)
class Term:
    """A path's value; `begins`: or any that begins so."""

    path: str
    value: str
    begins: bool = False


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of these holds."""

    parts: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """Each of these holds."""

    parts: tuple[Question, ...]


Question = Term | AnyOf | AllOf


def tsvector(tenant_id: UUID, metadata: Mapping[str, Any]) -> str:
    """The terms of a document's metadata, as PostgreSQL reads a tsvector."""
    found = list(_leaves((), metadata))
    times = Counter(path for path, _ in found)
    terms = {_written(tenant_id, path, value) for path, value in found}
    terms |= {_written(tenant_id, path, SEVERAL) for path, count in times.items() if count > 1}
    if len(terms) > MAX_TERMS:
        terms = {_written(tenant_id, EVERYTHING, "")}
    return " ".join(sorted(map(_quoted, terms)))


def tsquery(tenant_id: UUID, question: Question) -> str:
    """The question, as PostgreSQL reads a tsquery."""
    return f"{_asked(tenant_id, question)} | {_quoted(_written(tenant_id, EVERYTHING, ''))}"


def value(found: Any) -> str:
    """A scalar as it stands in a term, its type first."""
    match found:
        case None:
            return "null"
        case bool():
            return str(found).lower()
        case int() | float():
            return "n" + sortable(found)
        case _:
            return f"t{found}"


def sortable(number: float) -> str:
    """A number as 16 hexadecimal digits that sort as numbers do."""
    if abs(number) < SMALLEST:
        number = 0.0
    bits = int.from_bytes(struct.pack(">d", max(-LARGEST, min(LARGEST, number)) + 0.0))
    return f"{bits ^ (1 << 63) if bits < 1 << 63 else bits ^ ((1 << 64) - 1):016x}"


def between(path: str, low: float | None, high: float | None) -> Question:
    """Numbers from low to high, both included; None: no limit. Also whatever has several values: one of them may be
    above the one limit, another below the other, which a filter lets pass."""
    first = sortable(-LARGEST if low is None else low)
    last = sortable(LARGEST if high is None else high)
    starts = _beginnings(first[:PRECISION], last[:PRECISION]) if first <= last else ()
    return AnyOf((*(Term(path, "n" + start, begins=True) for start in starts), Term(path, SEVERAL)))


def _beginnings(first: str, last: str) -> Iterator[str]:
    """What the numbers from first to last, of equal length, begin with."""
    if first == last:
        yield first
        return
    if set(first) <= {"0"} and set(last) <= {"f"}:
        yield ""
        return
    low, high = HEX.index(first[0]), HEX.index(last[0])
    if low == high:
        yield from (HEX[low] + rest for rest in _beginnings(first[1:], last[1:]))
        return
    end = len(first) - 1
    yield from (HEX[low] + rest for rest in _beginnings(first[1:], "f" * end))
    yield from HEX[low + 1 : high]
    yield from (HEX[high] + rest for rest in _beginnings("0" * end, last[1:]))


def _leaves(keys: tuple[str, ...], found: Any) -> Iterator[tuple[str, str]]:
    """(path, value) of each scalar, object and list; a list's own values have its path."""
    path = ".".join(keys)
    if isinstance(found, Mapping):
        if keys:
            yield path, "{"
        for key, inner in found.items():
            yield from _leaves((*keys, key), inner)
    elif isinstance(found, list):
        yield path, SEVERAL
        for inner in found:
            yield from _leaves(keys, inner)
    else:
        yield path, value(found)


def _written(tenant_id: UUID, path: str, value: str) -> str:
    # Eight digits of the tenant keep the terms of others out of the way, if not always all.
    return f"{tenant_id.hex[:8]}{path}={value}"[:MAX_LENGTH]


def _asked(tenant_id: UUID, question: Question) -> str:
    match question:
        case Term(path, value, begins):
            written = _written(tenant_id, path, value)
            return _quoted(written) + (":*" if begins else "")
        case AnyOf(parts):
            return "(" + " | ".join(_asked(tenant_id, part) for part in parts) + ")"
        case AllOf(parts):
            return "(" + " & ".join(_asked(tenant_id, part) for part in parts) + ")"


def _quoted(term: str) -> str:
    """A lexeme as PostgreSQL reads it."""
    return "'" + term.replace("\\", "\\\\").replace("'", "''") + "'"
