"""Metrics: as trec_eval computes them, and as they must be whatever is ranked."""

from __future__ import annotations

import json
from math import log2
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.evaluation.metrics import mean, measure, ndcg, precision, recall, reciprocal_rank

#: 40 random rankings with what trec_eval says of them (pytrec_eval-terrier 0.5.11; reciprocal ranks of the first 10).
#: Kept, because the package holds compiled code for a test of arithmetic.
TREC_EVAL = Path(__file__).parent.parent / "samples" / "trec_eval.jsonl"

ids = st.integers(0, 30).map(str)
rankings = st.lists(ids, unique=True, max_size=30)
judgements = st.dictionaries(ids, st.integers(-1, 3), min_size=1).filter(lambda grades: max(grades.values()) > 0)
cuts = st.integers(1, 40)


def test_they_agree_with_trec_eval() -> None:
    cases = [json.loads(line) for line in TREC_EVAL.read_text().splitlines()]
    assert len(cases) == 40
    for case in cases:
        assert measure(case["ranked"], case["grades"], 10) == pytest.approx(case["trec_eval"], abs=1e-9)


def test_an_example_by_hand() -> None:
    grades, ranked = {"a": 3, "b": 1, "c": 2, "d": 0}, ["d", "a", "x", "b"]
    assert precision(ranked, grades, 5) == 2 / 5
    assert recall(ranked, grades, 4) == 2 / 3
    assert recall(ranked, grades, 2) == 1 / 3
    assert reciprocal_rank(ranked, grades, 4) == 1 / 2
    assert reciprocal_rank(ranked, grades, 1) == 0
    best = 3 + 2 / log2(3) + 1 / log2(4)
    assert ndcg(ranked, grades, 4) == pytest.approx((3 / log2(3) + 1 / log2(5)) / best)


@given(rankings, judgements, cuts)
def test_each_is_between_nothing_and_all(ranked: list[str], grades: dict[str, int], k: int) -> None:
    assert all(0 <= value <= 1 + 1e-12 for value in measure(ranked, grades, k).values())


@given(judgements, cuts)
def test_the_best_ranking_has_the_best_values(grades: dict[str, int], k: int) -> None:
    ranked = sorted(grades, key=lambda id: -grades[id])
    relevant = sum(grade > 0 for grade in grades.values())
    found = measure(ranked, grades, k)
    assert found[f"nDCG@{k}"] == pytest.approx(1) and found[f"MRR@{k}"] == 1
    assert found[f"P@{k}"] == min(k, relevant) / k and found[f"recall@{k}"] == min(k, relevant) / relevant


@given(rankings, judgements, cuts)
def test_what_comes_after_k_does_not_matter(ranked: list[str], grades: dict[str, int], k: int) -> None:
    assert measure(ranked, grades, k) == measure(ranked[:k], grades, k)


@given(rankings, judgements, cuts)
def test_recall_grows_with_k(ranked: list[str], grades: dict[str, int], k: int) -> None:
    assert recall(ranked, grades, k) <= recall(ranked, grades, k + 1)


@given(rankings.filter(lambda ranked: len(ranked) > 1), judgements, cuts, st.data())
def test_a_better_one_further_up_never_harms(
    ranked: list[str], grades: dict[str, int], k: int, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(ranked) - 2))
    above, below = sorted(ranked[at : at + 2], key=lambda id: grades.get(id, 0))
    worse = [*ranked[:at], above, below, *ranked[at + 2 :]]
    better = [*ranked[:at], below, above, *ranked[at + 2 :]]
    for name, value in measure(worse, grades, k).items():
        assert measure(better, grades, k)[name] >= value - 1e-12, name


def test_without_anything_relevant_there_is_nothing_to_measure() -> None:
    for grades in ({}, {"a": 0}, {"a": -1}):
        with pytest.raises(ValueError, match="nothing is relevant"):
            measure(["a"], grades, 10)
    with pytest.raises(ValueError, match="k is 1"):
        precision(["a"], {"a": 1}, 0)


def test_a_mean_is_of_those_that_have_the_metric() -> None:
    assert mean([{"P@5": 1.0, "answer@5": 0.5}, {"P@5": 0.0}]) == {"P@5": 0.5, "answer@5": 0.5}
    assert mean([]) == {}
