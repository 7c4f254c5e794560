"""The one SQL statement of a search: composed from the fragments of sql/search.sql, run, and its rows as hits."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings

from apps.access import tenancy
from apps.access.sql import database, execute, load
from apps.documents import attributes
from apps.documents.db import vector_from, vector_text
from apps.documents.embedding import EmbeddingError
from apps.documents.index_care import dead_share
from apps.documents.models import EmbeddingSpace
from apps.documents.spaces import column_type, embedder_for
from apps.documents.vector_index import OPERATORS, bits

from . import lexical, past, policy
from .filters import Filter
from .lexical import Words
from .types import Hit, Scope, SearchQuery, Vector

QUERIES = load(Path(__file__).parent / "sql")

LEXICAL_WEIGHT = 0.75  # of a hybrid search's score; the rest is the similarity's (`lexical_weight`)
LEAST_KNOWN = 0.04  # of a query: the similarity still orders what no word finds
KNOWN_FROM = 1_000  # letters of a long query
MAX_MATCHES = 20_000
NEAR = 22  # where a row of the statement tells how many the leg by vectors has found
SAMPLE = 1_000  # documents looked at to tell how many a filter lets pass
_FIXED = {"max_matches": MAX_MATCHES, "k1": lexical.K1, "b": lexical.B}


@dataclass(frozen=True, slots=True)
class Choice:
    """What is decided before the statement is made.

    share: which part of the documents the filter lets pass, or was live then, None where that does not matter;
    at_least: there may be more, which were not counted. few: so few chunks are left that all of them are compared.
    scanned: how many rows of each graph may be visited, 0 for those only that are found together. words: what is
    looked for by words, and lexical_weight what they count for beside the similarity. moment: the past's
    parameters.
    """

    share: float | None
    at_least: bool
    few: bool
    uses_index: bool
    scanned: int
    words: Words | None
    lexical_weight: float
    moment: Mapping[str, Any]


def compose(
    collections: Sequence[Scope],
    query: SearchQuery,
    vector: Vector | None,
    choice: Choice,
) -> tuple[str, dict]:
    """The statement and its parameters. Identifiers come from the space's row and constants, values are parameters."""
    legs, names, parameters = legs_of(collections, query, vector, choice)
    statement = QUERIES["search"].format(
        **names,
        legs="\n".join(legs.values()),
        fusion=QUERIES["fuse_" + query.mode].format(**names),
        vector=QUERIES["vector"].format(**names) if query.diversify else "",
    )
    return statement, parameters


def legs_of(
    collections: Sequence[Scope],
    query: SearchQuery,
    vector: Vector | None,
    choice: Choice,
) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
    """({leg: its SQL}, what stands in the fragments' braces, the parameters)."""
    chunks = sum(collection.chunks for collection in collections)
    tokens = sum(collection.tokens for collection in collections)
    space = collections[0].space
    type, candidates = column_type(space), policy.candidates(query)
    names: dict[str, Any] = _FIXED | {
        "table": space.table,
        "operator": OPERATORS[space.metric],
        "type": type,
        "bits": bits(space, "embedding"),
        "asked_bits": bits(space, f"%(vector)s::{type}"),
        "passes": _passes(query.filter) if query.filter is not None else "true",
        "filter": query.filter.sql if query.filter is not None else "true",
        "candidates": candidates,
        "oversampled": candidates * policy.OVERSAMPLE,
        "lived": QUERIES["lived_" + past.when(query)],
        "placed": QUERIES["placed_" + past.when(query)],
    }
    parameters: dict[str, Any] = {
        "vector": vector_text(vector) if vector is not None else None,
        "collections": [collection.id for collection in collections],
        "fetch": query.fetch,
        "chunks": chunks,
        "average": max(1.0, tokens / chunks if chunks else 1.0),
        "lexical_weight": choice.lexical_weight,
        **(_parameters(collections, query.filter) if query.filter else {}),
        **choice.moment,
    }
    legs = {}
    if query.mode != "lexical":
        exact = policy.compares_all(collections) or (choice.few and query.filter is None)
        if query.is_past:
            leg = "dense_past" if choice.few or exact or query.pinned else "dense_since"
        else:
            indexed = "dense_binary" if space.index_parameters.get("binary") else "dense_index"
            leg = "dense_exact" if exact else "dense_filtered" if choice.few else indexed
        legs[leg] = QUERIES[leg].format(**names, holds=_holds(query, "e"))
    if query.mode != "dense":
        assert choice.words is not None
        legs["lexical"] = _lexical(query, choice.words, names, parameters, few=choice.few)
    return legs, names, parameters


def _lexical(query: SearchQuery, words: Words, names: dict, parameters: dict[str, Any], *, few: bool) -> str:
    """The leg by words; adds its parameters."""
    parameters["plan"] = words.plan
    ranks = []
    for number, term in enumerate(words.terms):
        parameters[f"term{number}"] = term.query
        ranks.append(QUERIES["rank_whole" if term.whole else "rank"].format(term=f"term{number}"))
    passing = few and query.filter is not None and not query.is_past
    source = QUERIES["chunks_passing"].format(**names) if passing else "documents_chunk c"
    names = names | {"chunks": source, "holds": "" if passing else _holds(query, "c")}
    if not words.counted:
        parameters["weights"] = [term.weight for term in words.terms]
        return QUERIES["lexical"].format(**names, ranks=", ".join(ranks))
    weights = lexical.weights(words.terms, chunks=parameters["chunks"])
    parameters |= {f"weight{number}": weight for number, weight in enumerate(weights)}
    parts = [QUERIES["part"].format(**names, weight=f"weight{at}", rank=rank) for at, rank in enumerate(ranks)]
    return QUERIES["lexical_counted"].format(**names, relevance=" + ".join(parts) or "0")


def index_settings(collections: Sequence[Scope], query: SearchQuery, choice: Choice | None = None) -> dict[str, str]:
    """Settings for the search's vector index, at first or as it is done again."""
    wanted, chunks = policy.candidates(query), sum(collection.chunks for collection in collections)
    space, filtered = collections[0].space, query.filter is not None or query.is_past
    scanned = policy.scanned_at_once(space, collections, query) if choice is None else choice.scanned
    return policy.index_settings(space, wanted, chunks, filtered=filtered, scanned=scanned, dead=dead_share(space))


def again(collections: Sequence[Scope], query: SearchQuery, choice: Choice, found: int) -> Choice | None:
    """Inside a tenant's scope: how the nearest are looked for once more, where the vector index has found too few; None
    where it has not."""
    wanted = policy.enough(query)
    chunks = sum(collection.chunks for collection in collections)
    part = 1.0 if choice.share is None else choice.share
    if not choice.uses_index or found >= min(wanted, round(part * chunks)):
        return None
    if choice.at_least and query.filter is not None:  # how many there are to compare
        part = max(part, _sampled(collections, query, query.filter))
        choice = replace(choice, share=part, at_least=False)
    exactly = replace(choice, few=True, uses_index=False)
    if choice.scanned:  # it gave up
        return exactly if part * chunks <= policy.MOST_AFTERWARDS else None
    tried = index_settings(collections, query, choice)
    scanned = policy.further(collections, wanted, found, part=part, tried=tried)
    return replace(choice, scanned=scanned) if scanned else exactly


def rows_of(
    collections: Sequence[Scope],
    query: SearchQuery,
    vector: Vector | None,
    *,
    terms: Sequence[lexical.Term] | None = None,
    fetch: int | None = None,
) -> list[tuple[Any, ...]]:
    """Inside a tenant's scope: the rows of a search, best first, each for `hit`. terms: the query's, where they have
    been read already. fetch: how many, where that is not the query's own. Done again, it has what is
    left of SEARCH_TIMEOUT_SECONDS; then PostgreSQL ends it (QueryCanceled)."""
    end = time.monotonic() + settings.SEARCH_TIMEOUT_SECONDS

    def limit() -> dict[str, str]:
        return {"statement_timeout": str(max(1, round((end - time.monotonic()) * 1000)))}

    def run(choice: Choice) -> list[tuple[Any, ...]]:
        statement, parameters = compose(collections, query, vector, choice)
        return execute(statement, parameters | ({"fetch": fetch} if fetch else {})).fetchall()

    tenancy.set_local(limit() | ({} if _exact(collections, query) else index_settings(collections, query)))
    choice = choose(collections, query, terms)
    rows = run(choice)
    while other := again(collections, query, choice, rows[0][NEAR] if rows else 0):
        choice = other
        tenancy.set_local(limit() | (index_settings(collections, query, choice) if choice.uses_index else {}))
        rows = run(choice)
    by_words = sum(row[21] is not None for row in rows)
    if choice.words and choice.words.chosen and by_words < (query.fetch if query.mode == "lexical" else 1):
        # Words that never stand together.
        tenancy.set_local(limit())
        rows = run(replace(choice, words=lexical.read(collections, query.query, every=True, known=terms)))
    return rows


def _holds(query: SearchQuery, row: str) -> str:
    """The filter as a condition of a leg's rows."""
    return " " + QUERIES["holds"].format(filter=query.filter.sql, row=row) if query.filter else ""


def choose(collections: Sequence[Scope], query: SearchQuery, terms: Sequence[lexical.Term] | None = None) -> Choice:
    """Inside a tenant's scope: how a search is done; terms: as for `rows_of`. Raises Problem 422 for a past that there
    never was."""
    exact = _exact(collections, query)
    part, at_least = None, False
    chunks = sum(collection.chunks for collection in collections)
    most = policy.most_compared(collections, policy.candidates(query)) / max(1, chunks)
    if query.filter is not None or query.as_of is not None:
        part, at_least = _share(collections, query, most)
    few = part is not None and not exact and part <= most
    every = few or query.pinned is not None
    return Choice(
        share=part,
        at_least=at_least,
        few=few,
        uses_index=not exact and not few,
        scanned=policy.scanned_at_once(collections[0].space, collections, query),
        words=lexical.read(collections, query.query, every=every, known=terms) if query.mode != "dense" else None,
        lexical_weight=lexical_weight(collections[0].space, query.query) if query.mode == "hybrid" else 1.0,
        moment=past.parameters(query, QUERIES) if query.is_past else {},
    )


def lexical_weight(space: EmbeddingSpace, query: str) -> float:
    """What the words count for in a hybrid search, 0 to 1: more, the less of the query its model knows. (An English one
    has nothing to say of Thai; benchmarks/RESULTS.md.)"""
    with contextlib.suppress(EmbeddingError):  # where the model is not to be had, but the vector is
        known = embedder_for(space).known(query[:KNOWN_FROM])
        return 1 - (1 - LEXICAL_WEIGHT) * max(LEAST_KNOWN, known)
    return LEXICAL_WEIGHT


def _exact(collections: Sequence[Scope], query: SearchQuery) -> bool:
    """Is no vector index asked, whatever a filter lets pass?"""
    return query.mode == "lexical" or policy.compares_all(collections) or query.pinned is not None


def _share(collections: Sequence[Scope], query: SearchQuery, most: float) -> tuple[float, bool]:
    """(which part of the documents a filter lets pass, or was live then, 0..1; is that the least it may be?): counted
    where an index finds them, but only until it is more than `most`, else judged by a sample."""
    found = query.filter or Filter("true", {})
    if found.question is None or query.is_past:
        return _sampled(collections, query, found), False
    documents = sum(collection.documents for collection in collections)
    bound = round(most * documents) + 1
    with database().cursor() as cursor:
        parameters = {"collections": [collection.id for collection in collections], **_parameters(collections, found)}
        cursor.execute(QUERIES["found"].format(passes=_passes(found)), parameters | {"most": bound})
        counted = cursor.fetchone()[0]
    return counted / max(1, documents), counted == bound


def _sampled(collections: Sequence[Scope], query: SearchQuery, found: Filter) -> float:
    """The same by a sample of the documents."""
    parameters = {"collections": [collection.id for collection in collections], **_parameters(collections, found)}
    with database().cursor() as cursor:
        if query.is_past:
            born = QUERIES["born"].format(filter=found.sql, sample=past.SAMPLE)
            cursor.execute(born, parameters | {"as_of": query.as_of})
        else:
            cursor.execute(QUERIES["passing"].format(filter=found.sql, sample=SAMPLE), parameters)
        sampled, passing = cursor.fetchone()
    return passing / max(1, sampled)


def _passes(found: Filter) -> str:
    """The filter as a condition of documents that an index is to find."""
    return found.sql if found.question is None else QUERIES["passes"].format(filter=found.sql)


def _parameters(collections: Sequence[Scope], found: Filter) -> dict[str, Any]:
    if found.question is None:
        return found.parameters
    return found.parameters | {"attributes": attributes.tsquery(collections[0].tenant_id, found.question)}


def hit(row: tuple[Any, ...], slugs: dict[UUID, str]) -> Hit:
    """A row of the statement; slugs: of the collections, by id."""
    (
        chunk_id,
        document_id,
        live,
        version,
        deleted,
        pending_since,
        revision,
        collection_id,
        source_uri,
        title,
        metadata,
        headings,
        text,
        sha256,
        start,
        end,
        page_starts,
        page_numbers,
        page,
    ) = row[:19]
    score, dense, lexical = row[19:22]
    return Hit(
        chunk_id=chunk_id,
        document_id=document_id,
        version=live,
        revision=revision,
        collection=slugs[collection_id],
        source_uri=source_uri,
        title=title,
        heading_path=tuple(headings),
        start=start,
        end=end,
        page=page,
        page_starts=tuple(page_starts or ()),
        page_numbers=tuple(page_numbers or ()),
        text=text,
        sha256=sha256,
        score=score,
        scores={
            "dense": dense,
            "lexical": lexical,
            "fused": score if dense is not None and lexical is not None else None,
            "rerank": None,
        },
        metadata=json.loads(metadata) if isinstance(metadata, str) else metadata,
        fresh=version == live and not deleted,
        deleted=deleted,
        pending_since=pending_since,
        vector=vector_from(row[24]) if len(row) > 24 and row[24] is not None else None,
        version_date=row[23],
    )
