"""Django's PostgreSQL backend with a pool whose connections are looked at before use.

Django's own check of a pooled connection is a round trip in front of every request. A server that has ended a session
has closed its socket, which shows without asking.
"""

from __future__ import annotations

import select
from typing import Any

import psycopg
from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> psycopg.Connection:
        connection = super().get_new_connection(conn_params)
        while self.pool and not _alive(connection):
            connection.close()
            self.pool.putconn(connection)  # the pool replaces it
            connection = super().get_new_connection(conn_params)
        return connection


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
