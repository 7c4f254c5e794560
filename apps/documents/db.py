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
    with connection.cursor() as cursor:
        cursor.execute(QUERIES[name].replace("{table}", table).replace("{type}", type), parameters)
        return cursor.fetchall()


def run(name: str, *, table: str = "", type: str = "", **parameters: Any) -> int:
    """Run a named statement; how many rows it touched."""
    with connection.cursor() as cursor:
        cursor.execute(QUERIES[name].replace("{table}", table).replace("{type}", type), parameters)
        return cursor.rowcount


def run_large(name: str, **parameters: Any) -> int:
    """`run` with parameters sent beside the statement, not written into it: no second, escaped copy of a big text."""
    connection.ensure_connection()
    with psycopg.Cursor(connection.connection) as cursor:
        cursor.execute(QUERIES[name], parameters)
        return cursor.rowcount


def vector_text(values: Sequence[float]) -> str:
    """pgvector's text form of a vector."""
    return "[" + ",".join(map(repr, values)) + "]"
