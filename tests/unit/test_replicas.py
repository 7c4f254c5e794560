"""What a process makes of what it has seen of replicas (access/replicas.py)."""

from __future__ import annotations

import time
from collections import deque

import pytest

from apps.access import replicas
from apps.access.replicas import Replica


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> Replica:
    """The only replica, of a primary that was at 100 an hour ago, at 200 a minute ago, and is at 300 since just now."""
    replica = Replica("replica_0")
    now = time.monotonic()
    monkeypatch.setattr(replicas, "_replicas", [replica])
    monkeypatch.setattr(replicas, "_primary", deque([(now - 3600, 100), (now - 60, 200), (now, 300)]))
    monkeypatch.setattr(replicas, "_watch", lambda: None)
    return replica


def _chosen() -> bool:
    return replicas.choose() is not None


def test_it_is_behind_since_the_primary_went_further(one: Replica) -> None:
    for replayed, seconds in ((50, 3600), (100, 60), (199, 60), (200, 0), (300, 0), (400, 0)):
        one.seen(replayed)
        assert one.lag == pytest.approx(seconds, abs=30)
        assert _chosen() is (seconds == 0)


def test_nothing_is_known_before_the_primary_has_answered(one: Replica) -> None:
    replicas._primary.clear()
    one.seen(300)
    assert not _chosen() and str(one) == "left out: not asked yet"


def test_it_is_used_again_after_whatever_it_was(one: Replica) -> None:
    one.seen(300)
    assert _chosen()
    for error, why in ((TimeoutError(), "hanging"), (OSError(), "unreachable")):
        one.lost(error)
        assert not _chosen() and str(one) == f"left out: {why}"
        one.seen(300)
        assert _chosen() and str(one).startswith("ok")
    one.seen(None)
    assert not _chosen() and str(one) == "left out: promoted"


@pytest.mark.parametrize(
    ("token", "chosen"),
    [
        ("", True),
        ("0/12C", True),  # 300
        ("0/12d", False),
        ("1/0", False),
        ("0/", False),
        ("300", False),
        ("0/12C ", False),
        ("123456789/0", False),
    ],
)
def test_a_token_asks_for_what_was_replayed(one: Replica, token: str, chosen: bool) -> None:
    one.seen(300)
    replicas.read_after(token)
    try:
        assert _chosen() is chosen
    finally:
        replicas.read_after("")
