"""Maximal marginal relevance, compared with its formula written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.retrieval.diversify import mmr


def by_the_formula(relevance: list[float], vectors: list[np.ndarray | None], diversify: float, k: int) -> list[int]:
    low, high = min(relevance), max(relevance)
    scaled = [1.0 if high == low else (score - low) / (high - low) for score in relevance]

    def cosine(a: np.ndarray | None, b: np.ndarray | None) -> float:
        if a is None or b is None or not a.any() or not b.any():
            return 0.0
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    chosen: list[int] = [int(np.argmax(scaled))]
    while len(chosen) < min(k, len(relevance)):
        worth = {
            one: (1 - diversify) * scaled[one]
            - diversify * max(cosine(vectors[one], vectors[other]) for other in chosen)
            for one in range(len(relevance))
            if one not in chosen
        }
        best = max(worth.values())
        chosen.append(min(one for one, value in worth.items() if value >= best - 1e-9))
    return chosen


@given(st.integers(0, 2**32), st.integers(1, 12), st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), st.integers(1, 15))
def test_it_is_the_formula(seed: int, count: int, diversify: float, k: int) -> None:
    random = np.random.default_rng(seed)
    relevance = sorted(random.normal(size=count).tolist(), reverse=True)
    vectors = [None if random.random() < 0.1 else row for row in random.normal(size=(count, 4)).astype(np.float32)]
    assert mmr(relevance, vectors, diversify=diversify, k=k) == by_the_formula(relevance, vectors, diversify, k)


@pytest.mark.parametrize("diversify", [0.0, 0.3, 1.0])
def test_the_best_comes_first_and_equals_keep_their_order(diversify: float) -> None:
    same = [np.ones(3, dtype=np.float32)] * 4
    assert mmr([5.0, 5.0, 5.0, 5.0], same, diversify=diversify, k=3) == [0, 1, 2]
    assert mmr([9.0, 5.0, 5.0, 1.0], same, diversify=diversify, k=1) == [0]
    assert mmr([], [], diversify=diversify, k=3) == []


def test_more_diversity_lets_the_unlike_overtake_the_alike() -> None:
    alike, unlike = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    scores, vectors = [1.0, 0.9, 0.2, 0.0], [alike, alike, unlike, unlike]
    assert mmr(scores, vectors, diversify=0.0, k=4) == [0, 1, 2, 3]
    assert mmr(scores, vectors, diversify=0.3, k=2) == [0, 1]
    assert mmr(scores, vectors, diversify=0.5, k=2) == [0, 2]


def test_the_scale_of_the_scores_and_the_length_of_the_vectors_do_not_matter() -> None:
    random = np.random.default_rng(3)
    scores, vectors = sorted(random.normal(size=20), reverse=True), random.normal(size=(20, 8)).astype(np.float32)
    plain = mmr(scores, list(vectors), diversify=0.4, k=20)
    assert mmr([1e3 * score - 7 for score in scores], list(vectors * 5), diversify=0.4, k=20) == plain
