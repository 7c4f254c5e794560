"""What a process makes of what it has seen of replicas (access/replicas.py)."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from django.test import override_settings

from apps.access import replicas
from apps.access.replicas import Replica


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> Replica:
    """The only replica, of a primary that was at 100 an hour ago, at 200 a minute ago, and is at 300 since just now."""
    replica = Replica("replica_0")
    now = time.monotonic()
    monkeypatch.setattr(replicas, "_replicas", [replica])
    monkeypatch.setattr(replicas, "_primary", [(now - 3600, 100), (now - 60, 200), (now, 300)])
    monkeypatch.setattr(replicas, "_watch", lambda: None)
    return replica


def _chosen() -> bool:
    return replicas.choose() is not None


def test_it_is_behind_since_the_primary_went_further(one: Replica) -> None:
    for replayed, seconds in ((50, 3600), (100, 60), (199, 60), (200, 0), (300, 0), (400, 0)):
        one.seen(replayed)
        assert one.lag == pytest.approx(seconds, abs=30)
        assert _chosen() is (seconds == 0)


@pytest.mark.parametrize("seconds", [1, 20, 100, 599, 610, 1_800, 3_500, 3_700, 7_200, 86_000])
def test_how_far_it_is_behind_is_known_for_as_long_as_the_primary_is_looked_at(
    one: Replica, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """The primary goes on and on, for a day; the replica has stopped at where it was so many seconds before the end."""
    clock, looks = SimpleNamespace(now=0.0), round(86_400 / replicas.LOOK_SECONDS)
    monkeypatch.setattr(replicas, "time", SimpleNamespace(monotonic=lambda: clock.now))
    replicas._primary.clear()
    for look in range(looks):
        clock.now = look * replicas.LOOK_SECONDS
        replicas._came(look)
    with override_settings(REPLICA_MAX_LAG_SECONDS=3_600):
        one.seen(looks - 1 - round(seconds / replicas.LOOK_SECONDS))
    assert one.lag == pytest.approx(seconds, rel=0.04, abs=replicas.LOOK_SECONDS)
    assert _chosen() is (seconds < 3_600)
    assert len(replicas._primary) <= replicas.MOST_LOOKS


def test_what_was_behind_before_the_first_look_is_so_for_longer(one: Replica) -> None:
    replicas._primary[:] = [(time.monotonic() - 3_600, 100)]
    one.seen(50)
    assert one.lag == pytest.approx(3_600, abs=30) and str(one) == "left out: lagging"


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
