"""The first dimensions of another model's vectors: less disk and memory, faster searches, somewhat worse ones.

Models trained for it lose little (Kusupati et al., 2022, "Matryoshka Representation Learning", arXiv:2205.13147);
others more: compare first (`manage.py space check`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Embedder, Vectors


class TruncatedEmbedder:
    """Implements `Embedder`: what the model gives, cut to `dimensions` and of unit L2 norm again."""

    def __init__(self, whole: Embedder, dimensions: int) -> None:
        """Raises ValueError unless the model has more dimensions."""
        if not 1 <= dimensions < whole.dimensions:
            raise ValueError(f"EMBEDDING_DIMENSIONS is {dimensions}, but {whole.model} has {whole.dimensions}")
        self._whole = whole
        self.model, self.revision = whole.model, whole.revision
        self.dimensions, self.max_tokens = dimensions, whole.max_tokens
        self.count, self.known = whole.count, whole.known

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return float32 [len(texts), dimensions], unit L2 norm, in input order."""
        cut = self._whole.embed(texts)[:, : self.dimensions]
        norms = np.linalg.norm(cut, axis=1, keepdims=True)
        return np.ascontiguousarray(cut / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)
