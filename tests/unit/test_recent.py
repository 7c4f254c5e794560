"""Recent: a cache of what was used last, bounded by entries, bytes and age."""

from __future__ import annotations

import pytest

from apps.access import recent
from apps.access.recent import Recent


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr(recent.time, "monotonic", lambda: now[0])
    return now


def kept(cache: Recent[int], *keys: str) -> list[int | None]:
    return [cache.get(key) for key in keys]


def test_gives_back_what_was_kept(clock: list[float]) -> None:
    cache = Recent[int](entries=2, bytes=100, seconds=10)
    cache.keep("a", 1, bytes=10)
    cache.keep("a", 2, bytes=30)
    assert (cache.get("a"), cache.get("b"), cache.bytes, len(cache)) == (2, None, 30, 1)


def test_what_was_used_longest_ago_goes_first(clock: list[float]) -> None:
    cache = Recent[int](entries=2, bytes=100, seconds=10)
    for number, key in enumerate("ab"):
        cache.keep(key, number, bytes=1)
    cache.get("a")
    cache.keep("c", 2, bytes=1)
    assert kept(cache, "a", "b", "c") == [0, None, 2]


def test_bytes_are_bounded(clock: list[float]) -> None:
    cache = Recent[int](entries=10, bytes=100, seconds=10)
    for number, key in enumerate("abc"):
        cache.keep(key, number, bytes=40)
    assert kept(cache, "a", "b", "c") == [None, 1, 2]
    cache.keep("b", 9, bytes=101)  # larger than all the room: the old one is gone as well
    assert kept(cache, "b", "c") == [None, 2]
    assert cache.bytes == 40


def test_what_is_too_old_is_not_given_and_leaves_memory(clock: list[float]) -> None:
    cache = Recent[int](entries=10, bytes=100, seconds=10)
    cache.keep("a", 1, bytes=10)
    clock[0] += 11
    assert cache.get("a") is None
    clock[0] += recent.SWEEP_SECONDS
    cache.keep("b", 2, bytes=10)
    assert (len(cache), cache.bytes) == (1, 10)
