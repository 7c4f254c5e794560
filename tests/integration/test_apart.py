"""What several nodes find is brought together as one statement would have done it, and a wait ends."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import psycopg
import pytest
from django.db import connection

from apps.access import cutoff, nodes, tenancy
from apps.access.cutoff import CutOff, within
from apps.access.problems import as_problem
from apps.documents.models import Collection
from apps.retrieval import policy
from apps.retrieval.apart import together
from apps.retrieval.query_vectors import new_vector
from apps.retrieval.scopes import scopes_of
from apps.retrieval.statement import rows_of
from apps.retrieval.types import SearchQuery
from tests.conftest import make_collection
from tests.support.processes import wait_for

WORDS = ("harbour", "pilot", "lantern", "tide", "rope", "cargo", "signal")


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
@pytest.mark.parametrize("k", [3, 20, 150])
def test_rows_in_any_order_become_those_of_one_statement(
    library: Collection, monkeypatch: pytest.MonkeyPatch, mode: str, k: int
) -> None:
    monkeypatch.setattr(policy, "CANDIDATES", 20)  # of 200 chunks: each leg leaves some out
    query = SearchQuery("the pilot and the harbour signal", collections=(library.slug,), k=k, mode=mode)
    with tenancy.snapshot(library.tenant_id):
        scopes = scopes_of(query.collections)
    vector = new_vector(tenant_id=library.tenant_id, space=library.space, query=query.query)
    with tenancy.snapshot(library.tenant_id):
        expected = rows_of(scopes, query, vector)
        every = rows_of(scopes, query, vector, fetch=2 * policy.candidates(query))
    random.Random(k).shuffle(every)
    found = together(every, scopes, query)
    assert [row[0] for row in found] == [row[0] for row in expected] and len(found) > 2
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[19:22] == pytest.approx(theirs[19:22]) and len(ours) == len(theirs)


@pytest.fixture
def library(tenant: Any, ingest: Callable[..., Any]) -> Collection:
    collection = make_collection(tenant)
    dice = random.Random(5)
    for number in range(40):
        said = "\n\n".join(
            f"# Part {part}\n\n" + " ".join(dice.choices(WORDS, k=12)) + f" {number}." for part in range(5)
        )
        ingest(collection, said, source_uri=f"d{number}", media_type="text/markdown")
    return collection


def test_a_wait_that_takes_too_long_is_cut_off_and_the_next_goes_on(tenant: Any) -> None:
    began = time.monotonic()
    connection.ensure_connection()
    limited = within(connection.connection, 0.5)
    with pytest.raises(CutOff) as error, limited, tenancy.scope(tenant.id), connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(60)")
    assert time.monotonic() - began < 30
    problem = as_problem(error.value)
    assert (problem.status_code, problem.code) == (503, "shards_unavailable")
    connection.close()
    with tenancy.scope(tenant.id), connection.cursor() as cursor:
        with within(connection.connection, 0.5):
            cursor.execute("SELECT 1")
        time.sleep(1)  # the block is over: nobody cuts this off
        cursor.execute("SELECT 1")
    wait_for(lambda: not _sleeping(), seconds=20, what="the statement that was cut off to end by itself")


def test_whoever_is_slow_is_asked_before_it_is_cut_off(tenant: Any) -> None:
    asked: list[float] = []

    def answers() -> bool:
        asked.append(time.monotonic())
        return len(asked) < 3

    connection.ensure_connection()
    limited = within(connection.connection, 0.5, answers=answers)
    with pytest.raises(CutOff), limited, tenancy.scope(tenant.id), connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(60)")
    assert len(asked) == 3 and asked[2] - asked[1] > 0.5
    connection.close()


def test_a_coordinator_that_hangs_once_it_is_connected_does_not_answer(
    tenant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks the nodes would wait for it for ever, and nobody would be cut off any more."""
    monkeypatch.setattr(nodes, "HOLDERS", "SELECT pg_sleep(60)")
    began = time.monotonic()
    assert not nodes.all_answer()
    assert time.monotonic() - began < nodes.CONNECT_SECONDS + 2


def test_a_forked_process_waits_for_nothing_of_its_parents(tenant: Any) -> None:
    """Nor for a lock that was held at that moment by the thread that looks."""
    connection.ensure_connection()
    at = connection.connection.info.dsn, connection.connection.info.password

    def child() -> None:
        assert not cutoff._waits
        with psycopg.connect(at[0], password=at[1]) as own, pytest.raises(CutOff), within(own, 0.5):
            own.execute("SELECT pg_sleep(60)")

    process = get_context("fork").Process(target=child)
    with within(connection.connection, 60):
        with cutoff._lock:
            process.start()
        process.join(20)
        connection.connection.execute("SELECT 1")
    assert process.exitcode == 0, "it waits for ever"


def _sleeping() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'")
        return bool(cursor.fetchall())
