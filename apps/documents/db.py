"""Running this app's named queries (sql/*.sql)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from django.db import connection

from apps.access.sql import load

QUERIES = load(Path(__file__).parent / "sql")


def rows(name: str, *, table: str = "", type: str = "", **parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a named query. `table` and `type` fill {table} and {type}: names made by spaces.py, never input."""
    return _execute(name, table, type, parameters).fetchall()


def run(name: str, *, table: str = "", type: str = "", **parameters: Any) -> int:
    """Run a named statement; how many rows it touched."""
    return _execute(name, table, type, parameters).rowcount


def _execute(name: str, table: str, type: str, parameters: dict[str, Any]) -> psycopg.Cursor:
    """Django's cursors write the parameters into the statement, and Postgres plans it anew for every partition, which
    takes longer than most of these statements do. Here it stays prepared in the session, the parameters beside it."""
    statement = QUERIES[name].replace("{table}", table).replace("{type}", type)
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors:
        return psycopg.Cursor(connection.connection).execute(statement, parameters, prepare=True)


def vector_text(values: Sequence[float]) -> str:
    """pgvector's text form of a vector."""
    return "[" + ",".join(map(repr, values)) + "]"
