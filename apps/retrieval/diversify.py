"""Maximal marginal relevance: of candidates that say the same, one. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def mmr(
    relevance: Sequence[float], vectors: Sequence[npt.NDArray[np.float32] | None], *, diversify: float, k: int
) -> list[int]:
    """The indices of the k candidates chosen, in the order in which they were.

    Carbonell and Goldstein, 1998: the next one chosen has the largest

        (1 - diversify) * relevance - diversify * the largest similarity to one that is chosen already

    Relevance is scaled to 0..1 over the candidates, for scores of different kinds have different scales; similarity is
    the cosine of the vectors, 0 to a candidate that has none. Of equals the earlier candidate comes first. The first
    one chosen is the most relevant.
    """
    if not relevance:
        return []
    scaled = _scaled(np.asarray(relevance, dtype=np.float64))
    units = _units(vectors)
    nearest = np.full(len(scaled), -np.inf)  # to any that is chosen
    chosen: list[int] = []
    free = np.ones(len(scaled), dtype=bool)
    worth = scaled
    for _ in range(min(k, len(scaled))):
        best = int(np.argmax(np.where(free, worth, -np.inf)))
        chosen.append(best)
        free[best] = False
        nearest = np.maximum(nearest, units @ units[best])
        worth = (1 - diversify) * scaled - diversify * nearest
    return chosen


def _scaled(relevance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = relevance.min(), relevance.max()
    return (relevance - low) / (high - low) if high > low else np.ones_like(relevance)


def _units(vectors: Sequence[npt.NDArray[np.float32] | None]) -> npt.NDArray[np.float64]:
    """The vectors with unit length; zeros for one that is missing."""
    dimensions = next((len(vector) for vector in vectors if vector is not None), 1)
    rows = np.zeros((len(vectors), dimensions))
    for index, vector in enumerate(vectors):
        if vector is not None:
            rows[index] = vector
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
