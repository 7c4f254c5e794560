"""Windows around hits: what each takes, and that nothing is taken twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apps.retrieval.expand import windows


def test_a_hit_alone_reaches_as_far_as_its_neighbours() -> None:
    assert windows([(10, 20)], [(0, 30)]) == [(0, 30)]
    assert windows([(0, 20)], [(0, 20)]) == [(0, 20)]


def test_what_lies_between_two_hits_goes_to_the_better_one() -> None:
    assert windows([(40, 50), (20, 30)], [(20, 70), (0, 50)]) == [(30, 70), (0, 30)]
    assert windows([(20, 30), (40, 50)], [(0, 50), (20, 70)]) == [(0, 40), (40, 70)]


def test_hits_beside_one_another_keep_their_own_chunks() -> None:
    assert windows([(10, 20), (21, 30), (31, 40)], [(0, 30), (10, 40), (21, 50)]) == [(0, 21), (21, 31), (31, 50)]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(chunks of hits best first, their reaches) of a text cut with or without gaps and overlaps."""
    chunks, at, end = [], 0, 0
    for length in draw(st.lists(st.integers(1, 9), min_size=1, max_size=12)):
        start = max(at + 1 if chunks else 0, end + draw(st.integers(-2, 3))) if chunks else draw(st.integers(0, 3))
        end = max(end + 1, start + length)
        chunks.append((start, end))
        at = start
    picked = draw(st.lists(st.integers(0, len(chunks) - 1), min_size=1, unique=True))
    n = draw(st.integers(0, 4))
    reach = [(chunks[max(0, one - n)][0], chunks[min(len(chunks) - 1, one + n)][1]) for one in picked]
    return [chunks[one] for one in picked], reach


@given(cases())
def test_no_text_comes_twice_and_every_hit_has_its_own(case: tuple[list, list]) -> None:
    own, reach = case
    found = windows(own, reach)
    for (start, end), (first, last), (low, high) in zip(found, own, reach, strict=True):
        assert low <= start <= first < last <= end <= high
    for one in range(len(own)):
        for other in range(one):
            shared = range(max(found[one][0], found[other][0]), min(found[one][1], found[other][1]))
            in_both_chunks = range(max(own[one][0], own[other][0]), min(own[one][1], own[other][1]))
            assert set(shared) <= set(in_both_chunks)
    # Nothing that a window may reach is left out, but for what another one has.
    covered = {at for start, end in found for at in range(start, end)}
    for low, high in reach:
        assert set(range(low, high)) - covered == set() or len(own) > 1
