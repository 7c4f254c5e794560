"""A cross-encoder in this process, through sentence-transformers: an optional dependency (requirements-gpu.txt)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from .base import RerankError

BATCH = 32


class CrossEncoderReranker:
    """Implements `Reranker`. The model is loaded by the first call and judges for one caller at a time."""

    backend = "sentence_transformers"

    def __init__(self, *, model: str) -> None:
        """model: a name on the Hugging Face hub, or a directory."""
        self.model = model
        self._encoder: Any = None
        self._lock = threading.Lock()

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """What the model gives each pair; texts past its window are cut by it. Raises RerankError."""
        if not texts:
            return []
        with self._lock:
            encoder = self._loaded()
            try:
                found = encoder.predict([(query, text) for text in texts], batch_size=BATCH, show_progress_bar=False)
                scores = [float(score) for score in found]
            except (RuntimeError, TypeError, ValueError) as error:  # out of memory; a model with several labels
                raise RerankError("server_error", "The reranking model failed.") from error
        return scores

    def _loaded(self) -> Any:
        if self._encoder is None:
            try:
                from sentence_transformers import CrossEncoder  # type: ignore[import-not-found]
            except ImportError:
                raise RerankError("unavailable", "sentence-transformers is not installed.") from None
            try:
                self._encoder = CrossEncoder(self.model)
            except (OSError, RuntimeError, ValueError) as error:
                raise RerankError("unavailable", "The model of RERANK_MODEL cannot be loaded.") from error
        return self._encoder
