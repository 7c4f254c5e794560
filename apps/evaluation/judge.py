"""Asks the product's search, and judges what it finds.

A hit is a chunk, a label is of a document: a document's rank is that of its best chunk. So that k documents are found,
the search is asked for more than k chunks; answers are looked for in the first k of these.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from apps.access.problems import Problem
from apps.retrieval.search import search
from apps.retrieval.types import Hit, SearchQuery

from .metrics import measure
from .types import Judged, Question

MODES = ("dense", "lexical", "hybrid")
MAX_K = 100
CHUNKS_PER_DOCUMENT, MAX_CHUNKS = 5, 200  # asked for: k times so many; what a search gives at most


def judge(*, tenant_id: UUID, collection: str, question: Question, mode: str, k: int, **options: Any) -> Judged:
    """One search, outside of a scope; options: more of a SearchQuery's fields.

    Raises what it raises: Problem, EmbeddingError; and Problem 502 `rerank_failed`, where it would answer unreranked.
    """
    chunks = min(MAX_CHUNKS, CHUNKS_PER_DOCUMENT * k)
    query = SearchQuery(query=question.text, collections=(collection,), k=chunks, mode=mode, **options)
    began = time.perf_counter()
    found = search(tenant_id=tenant_id, query=query, reuse=False)
    taken = (time.perf_counter() - began) * 1000
    if found.rerank is not None and found.rerank.error:
        raise Problem(502, "rerank_failed", f"The reranker failed: {found.rerank.error}.")
    hits = found.hits
    ranked = documents(hits, question)[:k]
    return Judged(question, ranked, measure(ranked, question.relevant, k) | answered(hits, question, k), taken)


def documents(hits: Iterable[Hit], question: Question) -> tuple[str, ...]:
    """The documents of the hits, each once, named as the question names them: by id, else by source URI."""
    names = (str(hit.document_id) if str(hit.document_id) in question.relevant else hit.source_uri for hit in hits)
    return tuple(dict.fromkeys(names))


def answered(hits: Sequence[Hit], question: Question, k: int) -> dict[str, float]:
    """Of a question with answers, 1 or 0: answer@k, does one of the first k chunks hold the text of one; span@k, does
    one hold the very place where the answer stands."""
    found: dict[str, float] = {}
    if question.answers:
        texts = [_folded(hit.text) for hit in hits[:k]]
        answers = [_folded(answer) for answer in question.answers]
        found[f"answer@{k}"] = float(any(answer in text for text in texts for answer in answers))
    if question.span is not None:
        name, start, end = question.span
        held = (hit.source_uri == name and hit.start <= start and end <= hit.end for hit in hits[:k])
        found[f"span@{k}"] = float(any(held))
    return found


def _folded(text: str) -> str:
    """Letter case, compatibility forms and white space do not make it another answer."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
