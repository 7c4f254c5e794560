"""Searching by words: what a query's words are, and by which of them chunks are looked up.

BM25 over Postgres' lexemes, any of which may be missing from a chunk. A query may hold phrases in quotation marks,
which count as rare words of their own, and beginnings of words (`config*`). A word that no chunk has is looked for as
those that are spelt nearly so.

Scoring every chunk that has any of the words would take too long in a large collection. There the chunks are chosen by
the counts of the collection's lexemes (documents/lexicon.py): clauses of up to three words that must stand together,
those that promise the highest scores first, until they hold as many chunks as it takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path

from rapidfuzz.distance import OSA

from apps.access.recent import Recent
from apps.access.sql import execute, load
from apps.documents import words
from apps.documents.lexicon import LEVELS

from .types import Scope

QUERIES = load(Path(__file__).parent / "sql")

K1, B = 1.2, 0.75  # BM25's usual constants (Robertson and Zaragoza, 2009)
MAX_TERMS, COUNTED_TERMS = 128, 24  # scored; where words are counted, the rarest of a long query
PLANNED_CHUNKS = 10_000  # in smaller collections every match is scored
PLANNED_TERMS = 8  # the rarest, of which clauses are made
CLAUSE_TERMS = 3
CLAUSES = 32
ROWS = 300  # chunks to choose from: above these few of the best ten are missed (benchmarks/RESULTS.md)
NEAR = 2  # nearly equal lexemes taken for a misspelt one
STEM = 0.6  # the least of a word that its stem may be
PER_EDIT = 0.5  # what a lexeme weighs for each letter that is different
_QUOTED = re.compile(
    r'"([^"]+)"|\u201c([^\u201d]+)\u201d|\u201e([^\u201c\u201d]+)[\u201c\u201d]|\u00ab([^\u00bb]+)\u00bb'
)
_BEGINNING = re.compile(r"(?<![\w*])(\w{2,})\*(?!\w)")
_BYTES = 1_000  # of a kept term, with its part of the key, about


@dataclass(frozen=True, slots=True)
class Term:
    """Something that chunks are scored by. query: for `@@`. counts: about how many live chunks have it at least once,
    twice, three and four times. whole: it is there or not, however often."""

    query: str
    weight: float = 1.0
    counts: tuple[float, ...] = (0.0,)
    whole: bool = False
    name: str = ""


#: The terms of queries, with counts as they were counted; and what was planned with some of a collection of a size.
_recent: Recent[list[Term]] = Recent(entries=10_000, bytes=32 * 2**20, seconds=600)
_planned: Recent[str] = Recent(entries=10_000, bytes=32 * 2**20, seconds=600)


@dataclass(frozen=True, slots=True)
class Words:
    """A query's terms, and which chunks are scored, for `@@`. counted: the terms' counts are known. chosen: not all
    chunks that have any of the words are scored."""

    terms: tuple[Term, ...]
    plan: str
    counted: bool
    chosen: bool = False


def read(
    collections: Sequence[Scope], query: str, *, every: bool = False, known: Sequence[Term] | None = None
) -> Words:
    """Inside a tenant's scope: how the collections are searched for the words of a query.

    every: all chunks that have any of the words, because a filter leaves few of them. known: the query's `terms`, where
    they have been read elsewhere.
    """
    chunks = sum(collection.chunks for collection in collections)
    scale = chunks / max(1, sum(collection.counted for collection in collections))
    scaled = [
        replace(term, counts=tuple(max(1.0, count * scale) for count in term.counts))
        for term in (terms(collections, query) if known is None else known)
    ]
    counted = chunks > PLANNED_CHUNKS and sum(collection.counted for collection in collections) >= chunks / 2
    if counted:
        scaled.sort(key=lambda term: -_idf(term, chunks))
    some = tuple(scaled[: COUNTED_TERMS if counted else MAX_TERMS])
    if counted and not every:
        planned = _plan(tuple(scaled[:PLANNED_TERMS]), chunks)
        alone = planned.split(" | ")
        return Words(some, planned, counted, chosen=any(term.query not in alone for term in some))
    return Words(some, " | ".join(term.query for term in some), counted)


def weights(terms: Sequence[Term], *, chunks: int) -> list[float]:
    """What each counted term weighs at most: BM25's inverse document frequency by its weight in the query."""
    return [_idf(term, chunks) * (K1 + 1) for term in terms]


def plan(terms: Sequence[Term], *, chunks: int, rows: float) -> str:
    """The chunks to score, as one tsquery: clauses, any of which may hold.

    A clause is some terms that a chunk must have, each at least so often. Clauses are taken by the score that a chunk
    of mean length has at least by them, until they hold about `rows` chunks, as if words came independently of each
    other.
    """
    deep = {1: 3, 2: 3, 3: 1}.get(len(terms), 0)  # the words of longer queries tell enough by being there
    clauses = []
    for size in range(1, min(CLAUSE_TERMS, len(terms)) + 1):
        for chosen in combinations(range(len(terms)), size):
            for levels in product(*(range(min(deep + 1, len(terms[at].counts))) for at in chosen)):
                score = sum(_idf(terms[at], chunks) * _saturated(level) for at, level in _with(chosen, levels))
                shares = [terms[at].counts[level] / chunks for at, level in _with(chosen, levels)]
                clauses.append((score, chunks * math.prod(shares), dict(_with(chosen, levels))))
    taken: list[tuple[float, dict[int, int]]] = []
    for _, expected, clause in sorted(clauses, key=lambda each: -each[0]):
        held = sum(count for count, _ in taken)
        if held >= rows or len(taken) == CLAUSES:
            break
        if expected < 0.5 or any(_implies(clause, other) for _, other in taken):
            continue
        if taken and held + expected > 1.5 * rows:
            continue
        taken = [each for each in taken if not _implies(each[1], clause)] + [(expected, clause)]
    return _factored(terms, [sorted(clause.items()) for _, clause in taken])


def _plan(terms: tuple[Term, ...], chunks: int) -> str:
    planned = _planned.get((terms, chunks))
    if planned is None:
        planned = plan(terms, chunks=chunks, rows=ROWS)
        _planned.keep((terms, chunks), planned, bytes=_BYTES * len(terms) + len(planned))
    return planned


def _factored(terms: Sequence[Term], clauses: Sequence[list[tuple[int, int]]]) -> str:
    """`(a & b) | (a & c)` as `a & (b | c)`, the rarest term in front: of what the index visits less is looked at."""
    rest: dict[tuple[int, int], list[list[tuple[int, int]]]] = {}
    for first, *others in clauses:
        rest.setdefault(first, []).append(others)
    parts = []
    for (at, level), following in rest.items():
        term = _at_least(terms[at], level)
        parts.append(f"({term} & ({_factored(terms, following)}))" if all(following) else term)
    return " | ".join(parts)


def _with(chosen: tuple[int, ...], levels: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    return zip(chosen, levels, strict=True)


def _implies(clause: dict[int, int], other: dict[int, int]) -> bool:
    """Does every chunk that the clause holds belong to the other one?"""
    return all(at in clause and clause[at] >= level for at, level in other.items())


def _saturated(level: int) -> float:
    """BM25's part of a term that comes level + 1 times in a chunk of mean length."""
    return (level + 1) * (K1 + 1) / (level + 1 + K1)


def _idf(term: Term, chunks: int) -> float:
    count = min(term.counts[0], chunks)
    return term.weight * math.log(1 + (chunks - count + 0.5) / (count + 0.5))


def _at_least(term: Term, level: int) -> str:
    return quoted(term.name + LEVELS[level]) if level else term.query


def quoted(lexeme: str) -> str:
    """A lexeme as tsquery reads it."""
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"


def terms(collections: Sequence[Scope], query: str) -> list[Term]:
    """Inside a tenant's scope: what the query is made of, in the languages of the collections, with counts as far as
    there are any: what it was the last time, unless the words of one were counted anew since, or something in it was
    erased."""
    counted = tuple((each.id, each.language, each.lexicon, each.erasures) for each in collections)
    found = _recent.get((counted, query))
    if found is None:
        found = _looked_up(collections, query)
        _recent.keep((counted, query), found, bytes=_BYTES * (1 + len(counted) + len(found)) + 4 * len(query))
    return found


def _looked_up(collections: Sequence[Scope], query: str) -> list[Term]:
    phrases = ["".join(groups) for groups in _QUOTED.findall(query)]
    beginnings = _BEGINNING.findall(query)
    plain = _BEGINNING.sub(" ", query)
    at = {
        "languages": sorted({collection.language for collection in collections}),
        "collections": [collection.id for collection in collections],
        "generations": [collection.lexicon for collection in collections],
        "levels": list(LEVELS),
    }
    asked = {"words": words.to_index(plain), "phrases": [words.to_index(phrase) for phrase in phrases]}
    asked["beginnings"] = beginnings + [run for run in words.UNSPACED.findall(plain) if len(run) == 1]
    found: dict[str, Term] = {}
    phrased: dict[str, Term] = {}
    for kind, name, weight, numbers in execute(QUERIES["terms"], {**at, **asked}).fetchall():
        counts = tuple(numbers)
        if kind == "word":
            found[name] = Term(quoted(name), float(weight), counts, name=name)
        elif kind == "beginning":
            phrased[name] = Term(name, 1.0, counts[:1])
        else:
            phrased[name] = Term(name, 1.0, whole=True)
    rarest = min((term.counts[0] for term in found.values()), default=0.0)
    terms = [replace(term, counts=(rarest / 10,)) if term.whole else term for term in phrased.values()]
    unknown = [name for name, term in found.items() if not term.counts[0] and _may_be_misspelt(name)]
    terms += found.values()
    if unknown and any(collection.lexicon for collection in collections):
        known = [term for name in unknown for term in _near(found[name], at)]
        terms += [term for term in known if term.name not in found]
    return terms


def _may_be_misspelt(lexeme: str) -> bool:
    return len(lexeme) >= 4 and lexeme.isalpha() and not words.UNSPACED.search(lexeme)


def _near(term: Term, at: dict) -> list[Term]:
    """The lexemes of the collections that differ from one in a letter, or two of a long one: left out, put in, another,
    or two changed about; never the first letter. Where there are none, those that it begins with: with a mistake in its
    ending a word keeps it, where others have lost theirs to the stemmer.
    """
    letters, first = len(term.name), term.name[0]
    limits = {"first": first, "next": chr(ord(first) + 1), "least": round(STEM * letters), "most": letters + 2}
    counts: dict[str, float] = dict(execute(QUERIES["alike"], {**at, **limits}).fetchall())
    apart = {name: OSA.distance(term.name, name) for name in counts}
    near = {name: distance for name, distance in apart.items() if distance <= _edits(letters)}
    if not near:
        begun = {name: OSA.distance(term.name[: len(name)], name) for name in counts if 4 < len(name) < letters}
        near = {name: 1 + distance for name, distance in begun.items() if distance <= _edits(len(name)) - 1}
    best = sorted(near, key=lambda name: (near[name], -len(name), -counts[name]))[:NEAR]
    return [Term(quoted(name), term.weight * PER_EDIT ** near[name], (counts[name],), name=name) for name in best]


def _edits(letters: int) -> int:
    return 2 if letters >= 8 else 1
