"""Searches of what there is while a node of a cluster is away: each node that answers is asked by itself.

The same statements run on each, as on one Postgres (documents/engines/one_node.py); collections, and how rare words
are, are the coordinator's. What the nodes find is brought together by the scores of the two legs, as one statement
would have done it (`fuse_*` in search.sql). Only in collections too small for counted words are these weighed by what
each node has, which is nearly the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from apps.access import nodes
from apps.access.nodes import Node
from apps.access.problems import Problem
from apps.documents.engines.one_node import snapshot_of

from . import lexical, policy
from .statement import lexical_weight, rows_of
from .types import Hit, Scope, SearchQuery, Vector

Row = tuple[Any, ...]
_DENSE, _LEXICAL = 20, 21  # where a row of the search statement has the legs' scores; one before, the fused one


class AllThere(Exception):
    """Every node answers: the cluster can be asked as one."""


class NoneThere(Exception):
    """No node answers, or none that does has the document that was asked for."""


@dataclass(frozen=True, slots=True)
class Rest:
    """The nodes that have answered, where each document that they found is, and how many shards there are of which so
    many are away."""

    tenant_id: UUID
    spaces: tuple[str, ...]
    nodes: list[Node]
    places: dict[UUID, Node]
    shards: int
    unavailable: int

    def each(self, hits: Sequence[Hit], work: Callable[[list[Hit]], list[Hit]]) -> list[Hit]:
        """What `work` makes of these hits, where they are, in their order."""
        done: list[Hit] = []
        for node in self.nodes:
            own = [hit for hit in hits if self.places[hit.document_id] is node]
            if own:
                with snapshot_of(node, self.tenant_id, self.spaces):
                    done += work(own)
        order = {hit.chunk_id: number for number, hit in enumerate(hits)}
        return sorted(done, key=lambda hit: order[hit.chunk_id])

    def as_json(self) -> dict[str, int]:
        return {"shards": self.shards, "unavailable": self.unavailable}


def rows_apart(
    tenant_id: UUID, scopes: Sequence[Scope], query: SearchQuery, vector: Vector | None
) -> tuple[Rest, list[Row]]:
    """Inside a snapshot of the coordinator: the rows of a search, best first. Raises AllThere, NoneThere, and what
    `rows_of` does."""
    terms = lexical.terms(scopes, query.query) if query.mode != "dense" else None
    fetch = 2 * policy.candidates(query) if query.mode == "hybrid" else None  # all that is fused
    spaces = tuple({scope.space.table for scope in scopes})
    holders = nodes.holders()
    with nodes.reachable(holders) as there:
        if len(there) == len(holders):
            raise AllThere
        found: list[Row] = []
        places: dict[UUID, Node] = {}
        asked, apt = [], False
        for node in there:
            try:
                with snapshot_of(node, tenant_id, spaces):
                    rows = rows_of(scopes, query, vector, terms=terms, fetch=fetch)
            except nodes.Away:
                continue
            except Problem:
                if query.pinned is None:
                    raise
                rows = None  # the version is on another node
            asked.append(node)
            apt = apt or rows is not None
            found += rows or []
            places.update((row[1], node) for row in rows or [])
    if not apt:
        raise NoneThere
    shards = sum(node.shards for node in holders)
    rest = Rest(tenant_id, spaces, asked, places, shards, shards - sum(node.shards for node in asked))
    return rest, together(found, scopes, query)


def together(rows: Sequence[Row], scopes: Sequence[Scope], query: SearchQuery) -> list[Row]:
    """The rows of several statements as one of all would have given them: each leg's best candidates of all, fused."""
    if query.mode != "hybrid":
        return sorted(rows, key=lambda row: (-row[19], row[0]))[: query.fetch]
    most, weight = policy.candidates(query), lexical_weight(scopes[0].space, query.query)
    dense, relevant = _best(rows, _DENSE, most), _best(rows, _LEXICAL, most)
    highest, lowest = max(dense.values(), default=0.0), min(dense.values(), default=0.0)
    top = max(relevant.values(), default=0.0)
    fused = []
    for row in rows:
        similarity, relevance = dense.get(row[0]), relevant.get(row[0])
        if similarity is None and relevance is None:
            continue
        by_words = relevance / top if relevance is not None and top else 0.0
        by_meaning = 0.0
        if similarity is not None:
            by_meaning = (similarity - lowest) / (highest - lowest) if highest > lowest else 1.0
        score = weight * by_words + (1 - weight) * by_meaning
        fused.append((*row[:19], score, similarity, relevance, *row[22:]))
    return sorted(fused, key=lambda row: (-row[19], row[0]))[: query.fetch]


def _best(rows: Sequence[Row], leg: int, most: int) -> dict[UUID, float]:
    """{chunk: score} of the leg's highest."""
    of_leg = sorted((row for row in rows if row[leg] is not None), key=lambda row: (-row[leg], row[0]))
    return {row[0]: row[leg] for row in of_leg[:most]}
