"""Named queries: `sql/*.sql` files beside the code that runs them, each query under a `-- name:` line; and running
them prepared, several in one round trip, on the primary or on a replica."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

_NAME = re.compile(r"^-- name: (\w+)[^\n]*\n", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)  # psycopg reads statements over 4,096 bytes anew each time
_alias: ContextVar[str] = ContextVar("alias", default=DEFAULT_DB_ALIAS)


def load(directory: Path) -> dict[str, str]:
    """Every named query of a directory: {name: text}. Raises ValueError when a name stands twice."""
    queries: dict[str, str] = {}
    for path in sorted(directory.glob("*.sql")):
        parts = _NAME.split(path.read_text())[1:]
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            if name in queries:
                raise ValueError(f"the query {name} stands twice; again in {path.name}")
            queries[name] = _COMMENT.sub("", body).strip().rstrip(";")
    return queries


def database() -> BaseDatabaseWrapper:
    """What `execute` and `tenancy.snapshot` talk to: the primary, but in a block of `reading_from`."""
    return connections[_alias.get()]


@contextmanager
def reading_from(alias: str) -> Iterator[None]:
    """For a block that only reads: from this database. Django's own `connection` stays the primary's."""
    token = _alias.set(alias)
    try:
        yield
    finally:
        _alias.reset(token)


def execute(statement: str, parameters: dict[str, Any]) -> psycopg.Cursor:
    """Run one of a fixed set of statements, on the application's connection or in `reading_from` a replica's.

    Django's cursors write the parameters into the statement, and Postgres plans it anew for every partition, which
    takes longer than most of these statements do. Here it stays prepared in the session, the parameters beside it.
    """
    connection = database()
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors:
        return psycopg.Cursor(connection.connection).execute(statement, parameters, prepare=True)


class _Patient(psycopg.Pipeline):
    """psycopg's own sends each statement by itself and wakes the server as often, which takes a quarter of a search's
    processor time (benchmarks/RESULTS.md)."""

    def _communicate_gen(self) -> Generator[Any, Any, None]:
        while self.command_queue:
            self.command_queue.popleft()()  # into libpq's buffer; whoever fetches sends it
        return
        yield


@contextmanager
def pipeline(session: psycopg.Connection) -> Iterator[None]:
    """What is executed in the block is sent, all together, when the rows of something are fetched; the rest at the
    end. One inside another is the same."""
    if session._pipeline is not None:
        yield
        return
    session._pipeline = _Patient(session)  # where `pipeline` puts its own
    with session.pipeline():
        yield
