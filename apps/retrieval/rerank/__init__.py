"""Which candidates fit a query best, judged by a model that reads both: one module per backend behind the seam in
`base`."""

from __future__ import annotations

from functools import cache

from django.conf import settings

from .base import Reranker, RerankError

__all__ = ["RerankError", "Reranker", "configured"]


@cache
def configured() -> Reranker | None:
    """The process's backend, from the RERANK_* settings; None where there is none."""
    # Imported when chosen: each brings what the others do not need.
    if settings.RERANK_BACKEND == "http":
        from .served import ServedReranker

        return ServedReranker(
            url=settings.RERANK_URL,
            model=settings.RERANK_MODEL,
            api_key=settings.RERANK_API_KEY,
            timeout=settings.RERANK_TIMEOUT_SECONDS,
        )
    if settings.RERANK_BACKEND == "sentence_transformers":
        from .cross_encoder import CrossEncoderReranker

        return CrossEncoderReranker(model=settings.RERANK_MODEL)
    if settings.RERANK_BACKEND == "fake":
        from .fake import FakeReranker

        return FakeReranker()
    return None
