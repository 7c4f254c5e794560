"""Is a collection's second space as good as the one that serves? Asked before it is promoted.

- Complete: each chunk has its vector (second_space.coverage).
- Agreement: of the k chunks that one space finds for a query, the share that the other finds as well. Two good models
  need not agree; where they hardly do, look at why.
- Known items: a sentence of a chunk is asked for; is the chunk among the first k? Needs no labels.
- Labelled queries of the sets that the collection has: the usual metrics, in dense and in hybrid mode.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from apps.access import tenancy
from apps.access.problems import Problem
from apps.documents import second_space
from apps.documents.models import Chunk, Collection
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery, SearchResult

from . import stored
from .judge import judge
from .metrics import mean
from .models import EvaluationSet
from .types import Question

SAMPLE = 100
MOST_QUESTIONS = 500
MODES = ("dense", "hybrid")
_SENTENCE = re.compile(r"[^.!?\u3002\uff01\uff1f\n]{10,200}")

Known = tuple[UUID, str]  # a chunk, and a sentence of it


def check(*, tenant_id: UUID, collection: str, k: int = 10, sample: int = SAMPLE) -> dict[str, Any]:
    """Outside of a scope: how the collection's two spaces compare; those of the second under its slug.

    Raises Problem 404 for an unknown collection, 409 `no_second_space`, and what searches raise.
    """
    with tenancy.scope(tenant_id):
        found = Collection.objects.select_related("space", "second_space").filter(slug=collection).first()
        if found is None:
            raise Problem(404, "unknown_collection", f"There is no collection {collection!r}.")
        if found.second_space is None:
            raise Problem(409, "no_second_space", f"The collection {collection!r} has no second embedding space.")
        chunks, there = second_space.coverage(found, found.second_space)
        known = list(_known(found, sample))
        sets = EvaluationSet.objects.filter(collection=collection).order_by("name")
        questions = [question for each in sets for question in stored.questions(each.id).values()][:MOST_QUESTIONS]
    of_spaces = {False: found.space.slug, True: found.second_space.slug}
    texts = [text for _, text in known] + [question.text for question in questions][:sample]
    results = {
        second: [_search(tenant_id, collection, text, k, second=second) for text in texts] for second in of_spaces
    }
    return {
        "collection": collection,
        "serving": found.space.slug,
        "second": found.second_space.slug,
        "chunks": chunks,
        "embedded": there,
        "queries": len(texts),
        "agreement": _agreement(*results.values()),
        "known_items": {slug: _known_items(known, results[second]) for second, slug in of_spaces.items()},
        "milliseconds": {
            slug: _median([each.timings["search_ms"] for each in results[second]]) for second, slug in of_spaces.items()
        },
        "labelled": len(questions),
        "metrics": {
            mode: {
                slug: _judged(tenant_id, collection, questions, mode, k, second) for second, slug in of_spaces.items()
            }
            for mode in MODES
            if questions
        },
    }


def _known(collection: Collection, sample: int) -> Iterator[Known]:
    """Sentences of live chunks, one each. Ids are random: the first in their order are a fair sample."""
    live = Chunk.objects.filter(collection_id=collection.id, retired_in_version__isnull=True).order_by("chunk_id")
    for chunk_id, text in live.values_list("chunk_id", "text")[:sample]:
        sentences = _SENTENCE.findall(text)
        if sentences:
            yield chunk_id, sentences[len(sentences) // 2].strip()


def _search(tenant_id: UUID, collection: str, text: str, k: int, *, second: bool) -> SearchResult:
    query = SearchQuery(text, collections=(collection,), k=k, mode="dense", second=second)
    return search(tenant_id=tenant_id, query=query, reuse=False)


def _agreement(first: Sequence[SearchResult], second: Sequence[SearchResult]) -> float | None:
    shares = []
    for one, other in zip(first, second, strict=True):
        ones, others = {hit.chunk_id for hit in one.hits}, {hit.chunk_id for hit in other.hits}
        if ones or others:
            shares.append(len(ones & others) / max(len(ones), len(others)))
    return round(statistics.fmean(shares), 4) if shares else None


def _known_items(known: Sequence[Known], results: Sequence[SearchResult]) -> float | None:
    held = [
        chunk_id in {hit.chunk_id for hit in found.hits} for (chunk_id, _), found in zip(known, results, strict=False)
    ]
    return round(statistics.fmean(held), 4) if held else None


def _median(milliseconds: Sequence[float]) -> float | None:
    return round(statistics.median(milliseconds), 2) if milliseconds else None


def _judged(
    tenant_id: UUID, collection: str, questions: Sequence[Question], mode: str, k: int, second: bool
) -> dict[str, float]:
    judged = [
        judge(tenant_id=tenant_id, collection=collection, question=question, mode=mode, k=k, second=second)
        for question in questions
    ]
    return {name: round(value, 4) for name, value in mean([each.metrics for each in judged]).items()}
