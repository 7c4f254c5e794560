"""What reranking, diversifying, widening and explaining add to a search, in process and by turns.

The reranker is a server that answers at once, so that its figure is what ragsite does around the call: HTTP, a second
transaction, and looking whether the documents are still there. The library has short documents and one of about 1 MB,
whose text is compressed in the database and cut for each of its hits.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apps.access import tenancy
from apps.documents import embed, prepare
from apps.documents.accept import Submission, accept
from apps.retrieval import rerank
from apps.retrieval.filters import compile_filter
from apps.retrieval.query_vectors import new_vector
from apps.retrieval.rerank.served import ServedReranker
from apps.retrieval.scopes import scopes_of
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery
from tests.support.fake_reranker import fake_reranker

from .corpus import passages, queries
from .stack import Clock, house, milliseconds

DOCUMENTS, QUERIES, ROUNDS = 1_000, 10, 4
LARGE = 1_000  # passages in one document
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "50 candidates diversified": {"diversify": 0.5},
    "1 neighbour": {"expand": 1},
    "10 neighbours": {"expand": 10},
    "50 candidates reranked by a server that takes no time": {"rerank": True},
    "explained": {"explain": True},
}


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    collection, _ = house("refine")
    texts = [*passages(DOCUMENTS), "\n\n".join(passages(LARGE))]
    for number, text in enumerate(texts):
        name = "large" if number == DOCUMENTS else f"p{number}"
        content = io.BytesIO(text.encode())
        submission = Submission(content=content, media_type="text/plain", source_uri=name, filename=name)
        with tenancy.scope(collection.tenant_id):
            accept(collection=collection, submission=submission, wake=False)
    prepare.drain()
    embed.drain()
    with tenancy.scope(collection.tenant_id):
        scopes = scopes_of(None)
    asked = queries(QUERIES)
    for text in asked:
        new_vector(tenant_id=collection.tenant_id, space=scopes[0].space, query=text)
    chunks = sum(found.chunks for found in scopes)
    with fake_reranker() as server:
        served = ServedReranker(url=server.url + "/rerank")
        configured, rerank.configured = rerank.configured, lambda: served  # type: ignore[assignment]
        try:
            for where, only in (("all documents", {}), ("one document of 1 MB", {"source_uri": "large"})):
                seconds: dict[str, list[float]] = {way: [] for way in WAYS}
                for number in range(ROUNDS):
                    for text in asked:
                        for way in list(WAYS)[:: 1 if number % 2 else -1]:
                            query = SearchQuery(text, filter=compile_filter(only), **WAYS[way])
                            with Clock() as clock:
                                found = search(tenant_id=collection.tenant_id, query=query, reuse=False)
                            assert len(found.hits) == 10 and not (found.rerank and found.rerank.error)
                            seconds[way].append(clock.seconds)
                plain = statistics.median(seconds["plain"])
                for way, taken in seconds.items():
                    more = (statistics.median(taken) - plain) * 1000
                    yield f"{where}, {chunks} chunks: {way}", "", f"+{more:.1f} ms ({milliseconds(taken)})"
        finally:
            rerank.configured = configured
