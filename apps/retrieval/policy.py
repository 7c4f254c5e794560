"""How the nearest vectors are looked for: which way, and how far. Numbers from benchmarks/RESULTS.md; docs/search.md
tells it to users.

1. **Exactly**, where few chunks are searched (EXACT_SCAN_ROWS), or few pass a filter (`most_compared`). The vector
   index would visit rows that do not pass until it gives up: at 1 % it loses a third of the answers.
2. **Through the index** otherwise, a filter looked up beside each row. Each partition or shard has a graph (or lists)
   of its own, and needs to find its share only.
3. **Again**, where too few of what is near the query counted (`further`): others do not pass the filter, or are other
   collections'. Through the index for longer where they are only sparse, exactly where hardly any was found: of a scan
   that gives up nothing can be believed, since it hands out what it happened to have seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.conf import settings
from django.db import connection

from apps.documents.engines import engine_for
from apps.documents.models import EmbeddingSpace

from .types import Scope, SearchQuery

STEPS = (10, 20, 50, 100, 200)
CANDIDATES = 100  # of each leg of a hybrid search: fusion needs more than k to choose from
BREADTH = 160  # of one graph: recall 0.994 of the ten nearest among 200,000 of 384 dimensions (80: 0.974), and no more
# than 0.005 of nDCG@10 below a scan of all vectors even of a language that the model hardly knows (80: 0.007)
BROADER = 1.3  # than what is sought: of 100 among those recall is 0.997, and no better with twice as much
FILTERED = 4  # times as many as wanted beside a filter, which most of what is found does not pass
SPARE = 10  # of each graph of several: the nearest are not spread evenly
LARGE = 400_000  # chunks for which all this is enough (0.992). Among more, graphs are searched further by the root of
MOST_FURTHER = 2  # their number: of a million 170 finds 0.92 to 0.94 of the ten nearest, 269 finds 0.953 and more
MAX_BREADTH = 1_000  # hnsw.ef_search cannot be more
BALANCE = 10  # to visit a row of the graph and look its document up takes as long as comparing so many exactly
MOST_COMPARED = 50_000
MOST_DEAD = 0.75  # for more of a graph's entries the search does not grow: it is about to be built anew
ENOUGH = 0.5  # of the candidates of a hybrid search, of which the first weigh most: all its words are looked up again
FEW = 5  # of those near the query: so few tell nothing of how many there are further out
SCANNED = 20_000  # rows that an index scan visits at least before it gives up; pgvector's own bound
PATIENCE = 20  # visited for each that should have been needed, were what is looked for spread evenly
MOST_AFTERWARDS = 500_000  # compared after all; more take longer than a search should (a second, about)
OVERSAMPLE = 10  # bits tell vectors apart so badly that so many more are compared again by the vectors themselves


def candidates(query: SearchQuery) -> int:
    """How many chunks a leg gives: what will be read, or more where two legs are fused. The planner has to know it: a
    few numbers, so that there are few statements to prepare."""
    wanted = query.fetch if query.mode == "dense" else max(CANDIDATES, query.fetch)
    return next((step for step in STEPS if step >= wanted), wanted)


def enough(query: SearchQuery) -> int:
    """With so many of them a leg's search is not done again."""
    return query.fetch if query.mode == "dense" else max(query.fetch, round(ENOUGH * candidates(query)))


def compares_all(scopes: Sequence[Scope]) -> bool:
    """So few live chunks that comparing them all is as fast as the vector index, and misses none."""
    return _chunks(scopes) <= settings.EXACT_SCAN_ROWS


def most_compared(scopes: Sequence[Scope], wanted: int) -> int:
    """Of at most so many chunks that pass a filter all are compared.

    Comparing a part p of n chunks costs p * n, the index wanted / p rows that cost BALANCE times as much each.
    """
    even = (BALANCE * wanted * _chunks(scopes)) ** 0.5
    return min(MOST_COMPARED, max(settings.EXACT_SCAN_ROWS, round(even)))


def scanned_at_once(space: EmbeddingSpace, scopes: Sequence[Scope], query: SearchQuery) -> int:
    """How many rows of each graph are visited at the first try, 0 for those only that are found together. Of bits, and
    of the past, nobody sees how many counted."""
    if not query.is_past and not space.index_parameters.get("binary"):
        return 0
    wanted, chunks = candidates(query), _chunks(scopes)
    fewest = most_compared(scopes, wanted) * engine_for(connection).graphs(connection)
    return max(SCANNED, PATIENCE * wanted * chunks // max(1, fewest))


def further(scopes: Sequence[Scope], wanted: int, found: int, *, part: float, tried: Mapping[str, str]) -> int:
    """How many rows of each graph are visited next, to find `wanted`; 0 where all that pass are compared instead.

    found: of `wanted`, by the settings `tried`. part: of the chunks, that pass a filter, about.
    """
    graphs = engine_for(connection).graphs(connection)
    seen = int(tried.get("hnsw.ef_search", SCANNED)) * graphs
    passing, needed = max(part, found / seen) * _chunks(scopes), wanted * seen / max(1, found)
    if passing <= MOST_AFTERWARDS and (found < FEW or needed * BALANCE >= passing):
        return 0
    return max(SCANNED, round(min(PATIENCE * needed, passing) / graphs))


def index_settings(
    space: EmbeddingSpace, wanted: int, chunks: int = 0, *, filtered: bool = False, scanned: int = 0, dead: float = 0
) -> dict[str, str]:
    """Settings of the vector index, to find the nearest `wanted` of so many chunks. filtered: of which not all pass.
    scanned: rows of each graph that may be visited, 0 for those only that are found together. dead: the part of a
    graph's entries that are found in vain."""
    graphs = engine_for(connection).graphs(connection)
    binary = space.index_parameters.get("binary")
    iterative = "relaxed_order" if scanned else "off"
    sought, broader = (wanted * OVERSAMPLE, 2.0) if binary else (wanted, BROADER)
    if space.index_method == EmbeddingSpace.Index.HNSW:
        breadth = max(BREADTH, round(broader * sought * (FILTERED if filtered else 1)))
        more = min(MOST_FURTHER, max(1.0, chunks / LARGE) ** 0.5) / (1 - min(dead, MOST_DEAD))
        breadth = min(MAX_BREADTH, round((SPARE + -(-breadth // graphs)) * more))
        return {
            "hnsw.ef_search": str(breadth),
            "hnsw.iterative_scan": iterative,
            "hnsw.max_scan_tuples": str(scanned or SCANNED),
            "hnsw.scan_mem_multiplier": "8",  # of work_mem: else it gives up for its memory before
        }
    lists = max(1, int(space.index_parameters.get("lists", 1)))
    # Twice the root is recall 0.95 or more, three times where lists are made of bits; those of several indexes are as
    # good as one's.
    probes = min(lists, max(1, round((3 if binary else 2) * lists**0.5)))
    enough = min(lists, max(probes, -(-lists * (scanned or SCANNED) // max(1, chunks // graphs)))) if chunks else lists
    return {
        "ivfflat.probes": str(probes),
        "ivfflat.iterative_scan": iterative,
        "ivfflat.max_probes": str(enough),
    }


def _chunks(scopes: Sequence[Scope]) -> int:
    return sum(scope.chunks for scope in scopes)
