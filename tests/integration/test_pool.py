"""Pooled connections whose sessions have ended never reach a request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper


@pytest.fixture
def pooled(database: None) -> Iterator[BaseDatabaseWrapper]:
    """The application's connection with a pool of one."""
    alone = connection.copy()
    alone._connection_pools = {}  # not the process-wide ones
    alone.settings_dict["OPTIONS"]["pool"] = {"min_size": 1, "max_size": 1, "timeout": 3}
    yield alone
    alone.close()
    alone.close_pool()


def run(wrapper: BaseDatabaseWrapper, statement: str) -> object:
    with wrapper.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def test_a_session_that_ended_in_the_pool_is_replaced_before_use(pooled: BaseDatabaseWrapper) -> None:
    ended = run(pooled, "SELECT pg_backend_pid()")
    pooled.close()  # back into the pool, idle
    assert run(connection, f"SELECT pg_terminate_backend({ended}, 5000)") is True
    assert run(pooled, "SELECT pg_backend_pid()") != ended


def test_a_session_that_only_has_something_to_say_is_kept(pooled: BaseDatabaseWrapper) -> None:
    kept = run(pooled, "SELECT pg_backend_pid()")
    run(pooled, "LISTEN pool_test")
    pooled.close()
    run(connection, "NOTIFY pool_test")
    assert run(pooled, "SELECT pg_backend_pid()") == kept
