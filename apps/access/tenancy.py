"""The tenant wall: which tenant a transaction acts for, and the policy that Postgres holds it to.

1. Every tenant table has row-level security enabled and *forced*, with one policy: the row's tenant must equal the
   setting `ragsite.tenant`.
2. `scope(tenant_id)` opens a transaction and sets that setting with SET LOCAL: it ends with the transaction, so a
   pooled connection never carries it to the next request.
3. Without it the setting is empty and the policy is false for every row: a forgotten scope shows nothing.

The few questions that come before the tenant is known (whose key is this? which jobs are due?) go through
SECURITY DEFINER functions that return identifiers and no content.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar
from uuid import UUID, uuid5

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.special import RunSQL
from psycopg import errors as pg
from psycopg.pq import TransactionStatus

from . import nodes
from .cutoff import CutOff, within
from .sql import database, execute, pipeline

TENANTS = UUID("8f0f2d6e-1f0b-5c0e-9a57-3a5a3c1b6f10")
DEFAULT_TENANT = "default"
TRIES = 4  # where others change the same rows
SPARE_SECONDS = 1.0
DOUBT_SECONDS, SHORT_DOUBT_SECONDS = 4.0, 0.5
Result = TypeVar("Result")

#: On a Citus cluster the policies are checked where the rows are, so SET LOCAL must follow the transaction to the
#: workers. One Postgres takes any two-part name and ignores it.
REACH_THE_SHARDS = "SET LOCAL citus.propagate_set_commands = 'local'"
TENANT = "NULLIF(current_setting('ragsite.tenant', true), '')::uuid"
_clustered: dict[str, bool] = {}
_expected: ContextVar[tuple[str, dict[str, Any], tuple[Any, ...]] | None] = ContextVar("expected", default=None)


def tenant_id_for(slug: str) -> UUID:
    """A tenant's id is derived from its slug, so that a scope can be opened before its row is read."""
    return uuid5(TENANTS, slug)


def is_clustered(connection: BaseDatabaseWrapper) -> bool:
    """Is the database a Citus cluster, by SHARDING_ENGINE or because its extension is there? Asked once."""
    if connection.alias not in _clustered:
        chosen = settings.SHARDING_ENGINE
        if chosen == "auto":
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_extension WHERE extname = 'citus'")
                chosen = "citus" if cursor.fetchone() else "postgres"
        _clustered[connection.alias] = chosen == "citus"
    return _clustered[connection.alias]


def set_local(values: Mapping[str, str]) -> None:
    """Inside a scope: settings for the rest of its transaction. Names are constants."""
    connection = database()
    if is_clustered(connection):  # which takes no other form to its workers
        for name, value in values.items():
            connection.connection.execute(f"SET LOCAL {name} = '{value}'", prepare=False)
        return
    each = ", ".join(f"set_config('{name}', %({name})s, true)" for name in values)
    execute(f"SELECT {each}", dict(values))


def enter(tenant_id: UUID | str, *, using: str = "default", first: str = "") -> None:
    """Set the tenant for the rest of the current transaction; outside one this is an error, not a leak.

    first: a statement to send along, in the same round trip.
    """
    connection = connections[using]
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("a tenant can only be set inside a transaction")
    with connection.cursor() as cursor:
        cursor.execute(f"{first}{REACH_THE_SHARDS}; SET LOCAL ragsite.tenant = %s", [str(tenant_id)])


@contextmanager
def scope(
    tenant_id: UUID | str,
    *,
    using: str = "default",
    repeatable_read: bool = False,
    durable: bool = True,
    replan: bool = True,
) -> Iterator[None]:
    """One transaction that sees and writes `tenant_id`'s rows only; inside another one, the outer tenant is set again
    after it.

    repeatable_read: every statement of the block reads the same snapshot (searches; see DESIGN on Citus).
    durable: False does not wait for the disk at the commit; for what a crash of Postgres may forget, because it would
    simply be done again.
    replan: False lets prepared statements keep the plan they have, whatever their parameters: for few rows, found by
    their keys, planning each time takes longer than any plan.

    On a cluster it ends with CutOff soon after one of the nodes has begun to hang (nodes.py): who waits for it holds a
    connection that others need.
    """
    outer = current(using=using) if connections[using].in_atomic_block else None
    with nullcontext() if outer is not None else _while_nodes_answer(using), transaction.atomic(using=using):
        first = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; " if repeatable_read else ""
        first += "" if durable else "SET LOCAL synchronous_commit = off; "
        # A plan that is kept may have been made while the tables were nearly empty: it must not read them from end to
        # end once they are full.
        first += "" if replan else "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off; "
        enter(tenant_id, using=using, first=first)
        yield
    if outer is not None:  # a savepoint's release keeps what was SET LOCAL in it; its rollback does not
        enter(outer, using=using)


def _while_nodes_answer(using: str) -> AbstractContextManager[None]:
    connection = connections[using]
    connection.ensure_connection()
    if not is_clustered(connection):
        return nullcontext()
    seconds = SHORT_DOUBT_SECONDS if nodes.any_away() else DOUBT_SECONDS
    return within(connection.connection, seconds, answers=nodes.all_answer)


@contextmanager
def snapshot(tenant_id: UUID | str, *, seconds: float | None = None) -> Iterator[None]:
    """A scope for reading, all of it in one snapshot, in as few round trips as its reads need. One inside another of
    the same tenant is the same snapshot.

    What is executed in the block is sent together with the next statement whose rows are fetched: the beginning, the
    tenant and all settings cost no round trip of their own. So a failure shows where rows are fetched, and one call
    takes one statement. Not for savepoints (transaction.atomic): Django does not know of this transaction.

    seconds: after which it ends with CutOff on a cluster (cutoff.py); SEARCH_TIMEOUT_SECONDS, within which a search
    should have ended, and a little more.
    """
    connection = database()
    connection.ensure_connection()
    clustered = is_clustered(connection)
    session = connection.connection
    if is_open():
        if current(using=connection.alias) != str(tenant_id):
            raise transaction.TransactionManagementError("a snapshot belongs to one tenant")
        with connection.wrap_database_errors:
            yield
        return
    limit = settings.SEARCH_TIMEOUT_SECONDS + SPARE_SECONDS if seconds is None else seconds
    limited = within(session, limit) if clustered else nullcontext()
    try:
        with limited, connection.wrap_database_errors, pipeline(session):
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ", prepare=False)
            if clustered:
                session.execute(REACH_THE_SHARDS, prepare=False)
            session.execute(f"SET LOCAL ragsite.tenant = '{UUID(str(tenant_id))}'", prepare=False)
            try:
                with _as_expected():
                    yield
            except (DatabaseError, psycopg.Error):
                raise
            except Exception:  # nothing was written: after a ROLLBACK psycopg would prepare everything anew
                session.execute("COMMIT", prepare=False)
                raise
            session.execute("COMMIT", prepare=False)
    finally:
        if session.closed:
            connection.close()  # the next one is another
        elif session.info.transaction_status != TransactionStatus.IDLE:
            session.rollback()


def is_open() -> bool:
    """Are we inside a scope or a snapshot?"""
    connection = database()
    if connection.in_atomic_block or connection.connection is None:
        return connection.in_atomic_block
    session = connection.connection
    # In a pipeline PostgreSQL tells only at its end that a transaction goes on.
    return session._pipeline is not None or session.info.transaction_status != TransactionStatus.IDLE


class Unexpected(Exception):
    """What a block of `expecting` was begun with does not hold: nothing that it did may be used."""


@contextmanager
def expecting(statement: str, parameters: dict[str, Any], row: tuple[Any, ...]) -> Iterator[None]:
    """The first snapshot of the block also reads a row, in the same round trip. Unless it is this one, the block raises
    Unexpected, whatever else it would have raised; as it does without any snapshot. A replica's does not count."""
    token = _expected.set((statement, parameters, row))
    try:
        yield
    finally:
        unread = _expected.get() is not None
        _expected.reset(token)
        if unread:
            raise Unexpected


@contextmanager
def _as_expected() -> Iterator[None]:
    expected = _expected.get()
    if expected is None or database().alias != DEFAULT_DB_ALIAS:
        yield
        return
    statement, parameters, row = expected
    read = execute(statement, parameters)  # sent with the next
    try:
        yield
    finally:
        if read.fetchone() != row:
            raise Unexpected
        _expected.set(None)


def run(tenant_id: UUID | str, work: Callable[[], Result], **options: bool) -> Result:
    """`work` in a scope of its own (`options` are the scope's), and again when Postgres rolled it back in favour of
    another transaction: it should change nothing but the database. Raises what it raised last."""
    for attempt in range(1, TRIES + 1):
        try:
            with scope(tenant_id, **options):  # type: ignore[arg-type]
                return work()
        except OperationalError as error:
            if attempt == TRIES or not is_conflict(error):
                raise
            time.sleep(random.uniform(0, 0.02 * attempt))  # or the same two may meet again
    raise AssertionError("unreachable")


def is_conflict(error: Exception) -> bool:
    """Did Postgres end the transaction in favour of another one? It was rolled back whole and may be tried again."""
    return isinstance(error.__cause__, pg.DeadlockDetected | pg.SerializationFailure | pg.LockNotAvailable)


def lost_a_node(error: Exception) -> bool:
    """Did a cluster's coordinator answer that one of its nodes does not? (What ends the coordinator itself is FATAL,
    and what ends the way to it has no code.) Or was it waited for in vain, because one hangs?"""
    cause = error.__cause__
    if isinstance(error, CutOff):
        return True
    if not isinstance(cause, psycopg.Error) or cause.sqlstate is None:
        return False
    return cause.sqlstate.startswith(("08", "57P")) and cause.diag.severity_nonlocalized == "ERROR"


def current(*, using: str = "default") -> str:
    """The tenant of the current transaction, or an empty string."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT coalesce(current_setting('ragsite.tenant', true), '')")
        return cursor.fetchone()[0]


def tenant_of_user(*, username: str | None = None, user_id: int | None = None) -> UUID | None:
    """Which tenant a curator signs in to: asked before the tenant can be set."""
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT access_tenant_of_user(%s, %s)", [username, user_id])
        return cursor.fetchone()[0]


def wall_sql(database: BaseDatabaseWrapper, table: str, *, column: str = "tenant_id", forced: bool = True) -> list[str]:
    """The statements that put `table` behind the wall, one per execute (Citus wants them so). forced: its owner too."""
    # Within a SELECT the planner does not see which tenant it is, and counts on as many rows as tenants have on
    # average. Of one that its statistics do not know yet it would expect none, and read all it has instead of looking
    # a few rows up. Citus cannot plan it (its cluster's plans are made anew each time).
    tenant = TENANT if is_clustered(database) else f"(SELECT {TENANT})"
    return [
        f'ALTER TABLE "{table}" ENABLE ROW LEVEL SECURITY',
        f'ALTER TABLE "{table}" {"FORCE" if forced else "NO FORCE"} ROW LEVEL SECURITY',
        f'CREATE POLICY tenant_wall ON "{table}" USING ({column} = {tenant})',
    ]


class TenantWall(RunSQL):
    """Migration operation: row-level security, enabled and forced, on one plain tenant table.

    definer_reads: also let the table's owner read across tenants, for the SECURITY DEFINER functions of the module
    docstring; the application never connects as the owner.
    """

    def __init__(self, table: str, *, column: str = "tenant_id", definer_reads: bool = False) -> None:
        self.table, self.column, self.definer_reads = table, column, definer_reads
        super().__init__(
            RunSQL.noop,  # what it is depends on the database
            [
                f'DROP POLICY IF EXISTS definer_reads ON "{table}"',
                f'DROP POLICY tenant_wall ON "{table}"',
                f'ALTER TABLE "{table}" NO FORCE ROW LEVEL SECURITY',
                f'ALTER TABLE "{table}" DISABLE ROW LEVEL SECURITY',
            ],
        )

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        for statement in wall_sql(schema_editor.connection, self.table, column=self.column):
            schema_editor.execute(statement, params=None)
        if self.definer_reads:
            policy = f'CREATE POLICY definer_reads ON "{self.table}" TO CURRENT_USER USING (true)'
            schema_editor.execute(policy, params=None)

    def deconstruct(self) -> tuple:
        raise NotImplementedError("written by hand in migrations, never serialised")

    def describe(self) -> str:
        return f"Row-level security by tenant on {self.table}"
