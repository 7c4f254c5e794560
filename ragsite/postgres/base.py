"""Django's PostgreSQL backend with a pool whose connections are looked at before use, and lost when they hang.

Django's own check of a pooled connection is a round trip in front of every request. A server that has ended a session
has closed its socket, which shows without asking.
"""

from __future__ import annotations

import select
from typing import Any

import psycopg
from django.conf import settings
from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> psycopg.Connection:
        connection = super().get_new_connection(conn_params)
        while self.pool and not _alive(connection):
            connection.close()
            self.pool.putconn(connection)  # the pool replaces it
            connection = super().get_new_connection(conn_params)
        return connection

    def _configure_connection(self, connection: psycopg.Connection) -> bool:
        changed = super()._configure_connection(connection)  # type: ignore[misc]  # not in the stubs
        if not self.pool:  # the owner's: migrations and commands
            return changed
        # A process that hangs in a transaction must not keep its documents from those who take its jobs over. Set here,
        # because not every owner of the tables may alter the application's role.
        connection.execute(f"SET idle_in_transaction_session_timeout = '{2 * settings.JOB_LEASE_SECONDS}s'")
        return True


def _alive(connection: psycopg.Connection) -> bool:
    """An idle session has nothing to say: whatever can be read is its end, or a notice, and a query tells which."""
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if not waiting.poll(0):
        return True
    try:
        connection.execute("")
    except psycopg.OperationalError:
        return False
    return True
