"""Pooled connections whose sessions have ended never reach a request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import DatabaseError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings

from tests.support.processes import wait_for


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


def test_a_process_that_hangs_in_a_transaction_loses_what_it_holds(pooled: BaseDatabaseWrapper) -> None:
    """Otherwise whoever takes its jobs over, or sends a newer version, would wait for it for ever."""
    with override_settings(JOB_LEASE_SECONDS=0.25):
        pooled.set_autocommit(False)
    run(pooled, "SELECT pg_advisory_xact_lock(815)")
    wait_for(lambda: run(connection, "SELECT pg_try_advisory_lock(815)"), seconds=10, what="the lock")
    run(connection, "SELECT pg_advisory_unlock(815)")
    with pytest.raises(DatabaseError):
        run(pooled, "SELECT 1")
