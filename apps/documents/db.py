"""Running this app's named queries (sql/*.sql)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apps.access.sql import execute, load

#: {held} in a query: the versions that it is about, at most one of each document.
HELD = "unnest(%(documents)s::uuid[], %(versions)s::bigint[]) AS held (document_id, version)"
QUERIES = {name: text.replace("{held}", HELD) for name, text in load(Path(__file__).parent / "sql").items()}


def rows(name: str, *, table: str = "", type: str = "", **parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a named query. `table` and `type` fill {table} and {type}: names made by spaces.py, never input."""
    return execute(_statement(name, table, type), parameters).fetchall()


def rows_of(name: str, values: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """The rows of a named statement about several rows, whose values stand in for {rows}: VALUES of one length."""
    row = "(" + ", ".join(["%s"] * len(values[0])) + ")"
    statement = QUERIES[name].replace("{rows}", ", ".join([row] * len(values)))
    return execute(statement, [value for each in values for value in each]).fetchall()


def run(name: str, *, table: str = "", type: str = "", **parameters: Any) -> int:
    """Run a named statement; how many rows it touched."""
    return execute(_statement(name, table, type), parameters).rowcount


def _statement(name: str, table: str, type: str) -> str:
    return QUERIES[name].replace("{table}", table).replace("{type}", type)


def vector_text(values: Sequence[float]) -> str:
    """pgvector's text form of a vector."""
    return "[" + ",".join(map(repr, values)) + "]"
