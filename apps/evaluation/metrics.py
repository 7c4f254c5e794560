"""How good a ranking is: pure functions of the ranked ids, best first, and the grades of the judged ones.

The conventions are trec_eval's, which BEIR reports by: what is not judged, or judged 0 or less, is not relevant; P@k
divides by k also where fewer were found; gains are the grades themselves (linear), discounted by log2(rank + 1), and
the ideal ranking is that of all that is judged relevant, cut at k. (Järvelin and Kekäläinen, 2002, allow both linear
and 2^grade - 1; with grades 0 and 1 they are the same.)

All are between 0 and 1. A ranking names no id twice, k is 1 or more. Without anything relevant there is nothing to
measure: recall and nDCG raise ValueError, as such queries are to be left out of a mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2

Grades = Mapping[str, int]


def precision(ranked: Sequence[str], grades: Grades, k: int) -> float:
    """P@k: the share of the first k places that hold something relevant."""
    return _found(ranked, grades, k) / k


def recall(ranked: Sequence[str], grades: Grades, k: int) -> float:
    """recall@k: the share of what is relevant that is among the first k."""
    return _found(ranked, grades, k) / len(_relevant(grades))


def reciprocal_rank(ranked: Sequence[str], grades: Grades, k: int) -> float:
    """MRR@k of one query: 1 / rank of the first relevant one; 0 where none is among the first k."""
    return next((1 / rank for rank, id in enumerate(ranked[:k], start=1) if grades.get(id, 0) > 0), 0.0)


def ndcg(ranked: Sequence[str], grades: Grades, k: int) -> float:
    """nDCG@k: the discounted gain of the first k, relative to the best possible."""
    gains = [max(0, grades.get(id, 0)) for id in ranked[:k]]
    return _discounted(gains) / _discounted(sorted(_relevant(grades), reverse=True)[:k])


def measure(ranked: Sequence[str], grades: Grades, k: int) -> dict[str, float]:
    """All of them, by their names: P and recall at 5 and k, MRR and nDCG at k. Raises ValueError as told above."""
    cuts = sorted({min(5, k), k})
    return (
        {f"P@{cut}": precision(ranked, grades, cut) for cut in cuts}
        | {f"recall@{cut}": recall(ranked, grades, cut) for cut in cuts}
        | {f"MRR@{k}": reciprocal_rank(ranked, grades, k), f"nDCG@{k}": ndcg(ranked, grades, k)}
    )


def mean(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over the queries that have it; empty without any."""
    names = dict.fromkeys(name for each in measured for name in each)
    values = {name: [each[name] for each in measured if name in each] for name in names}
    return {name: sum(found) / len(found) for name, found in values.items()}


def _found(ranked: Sequence[str], grades: Grades, k: int) -> int:
    if k < 1:
        raise ValueError("k is 1 or more")
    return sum(grades.get(id, 0) > 0 for id in ranked[:k])


def _relevant(grades: Grades) -> list[int]:
    """The grades above 0, at least one."""
    found = [grade for grade in grades.values() if grade > 0]
    if not found:
        raise ValueError("nothing is relevant")
    return found


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, start=1))
