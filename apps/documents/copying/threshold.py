"""What must hold before anything is copied, what is remembered of it, and the wall meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from django.conf import settings
from django.db import DatabaseError, connections, transaction

from ..engines import engine_for
from . import SOURCE, TARGET, tables
from .errors import CannotCopy, Unknown
from .parts import ask, do, until

LOCK = 0x636F7079  # any number that nobody else takes
TIDY_SECONDS = 10.0  # for the wall, after a failure; where this database does not answer, the next call puts it up
BYPASSES = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
WALLED = """
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
  AND relrowsecurity AND relforcerowsecurity = %s
"""
MIGRATIONS = "SELECT app || '.' || name FROM django_migrations"


@dataclass
class Mark:
    """What is remembered of copying, with this database: a comment on its list of migrations.

    source: whose copy it is. compared: all that older transactions wrote there is the same here; None until the first
    round is over. started: when the server there was, as of that round: it may have been restored since where it is
    another time. handed_over: the writers there were stopped and everything is here.
    """

    source: str
    compared: int | None = None
    started: str = ""
    handed_over: bool = False

    def keep(self) -> None:
        [(text,)] = ask(TARGET, "SELECT quote_literal(%s)", [json.dumps(asdict(self))])
        do(TARGET, f"COMMENT ON TABLE django_migrations IS {text}")


def read_mark() -> Mark | None:
    [(text,)] = ask(TARGET, "SELECT obj_description('django_migrations'::regclass, 'pg_class')")
    return Mark(**json.loads(text)) if text else None


def is_kept(mark: Mark) -> bool:
    """After a commit whose answer was lost: was it done? Raises Unknown."""
    connections[TARGET].close()
    try:
        with until(time.monotonic() + TIDY_SECONDS):
            ask(TARGET, "SELECT pg_advisory_lock(%s)", [LOCK])  # when the session of the commit has come to its end
            return read_mark() == mark
    except DatabaseError as error:
        raise Unknown(
            "the last answer was lost, and it is not known whether this database takes writes now: the source takes"
            " none. Run --final again"
        ) from error


@contextmanager
def opened(*, again: bool = False) -> Iterator[Mark]:
    """For a block that copies or compares, alone. again: also after everything was handed over. Raises CannotCopy."""
    _check_both()
    if not ask(TARGET, "SELECT pg_try_advisory_lock(%s)", [LOCK])[0][0]:
        raise CannotCopy("another process is copying into this database")
    try:
        lift_wall()
        mark = read_mark() or _first_mark()
        if mark.source != identity(SOURCE):
            raise CannotCopy("this database holds the copy of another one")
        if mark.handed_over and not again:
            raise CannotCopy("everything was handed over: --reopen lets the source take writes again, to begin anew")
        if not mark.handed_over:
            refuse_writes()
        yield mark
    except BaseException:
        connections[TARGET].close()  # it may have been cut off; the lock goes with it
        with suppress(DatabaseError), until(time.monotonic() + TIDY_SECONDS):
            _put_wall_up()
        raise
    _put_wall_up()
    ask(TARGET, "SELECT pg_advisory_unlock(%s)", [LOCK])


def _check_both() -> None:
    if ask(SOURCE, "SELECT 1 FROM pg_extension WHERE extname = 'citus'"):
        raise CannotCopy("the source is a Citus cluster, whose rows do not tell when they were written")
    if not ask(SOURCE, BYPASSES)[0][0]:
        raise CannotCopy("the source's role sees no rows: it must be a superuser or have BYPASSRLS")
    if identity(SOURCE) == identity(TARGET):
        raise CannotCopy("both are the same database")
    there, here = ({row[0] for row in ask(alias, MIGRATIONS)} for alias in (SOURCE, TARGET))
    if there != here:
        raise CannotCopy(f"both must be migrated alike; only one has {', '.join(sorted(there ^ here)[:5])}")
    _check_unused()


def _check_unused() -> None:
    serving = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = %s"
    [(sessions,)] = ask(TARGET, serving, [settings.DATABASES["default"]["USER"]])
    if sessions:
        raise CannotCopy(f"the application has {sessions} sessions here: what it wrote would be overwritten; stop it")


def refuse_writes() -> None:
    """Until everything is handed over nobody writes here but the sessions that copy (the command gives them their own
    setting): the next round would overwrite it. Raises CannotCopy where the application has a session from before."""
    _set("SET default_transaction_read_only = on")
    _check_unused()


def take_writes() -> None:
    """Let the application write here."""
    _set("RESET default_transaction_read_only")


def _set(what: str) -> None:
    [(name,)] = ask(TARGET, "SELECT quote_ident(current_database())")
    with transaction.atomic(using=TARGET):
        do(TARGET, "SET LOCAL citus.enable_ddl_propagation = off")  # sessions between the nodes go on writing
        do(TARGET, f"ALTER DATABASE {name} {what}")


def identity(alias: str) -> str:
    """Which database this is, of all that there are."""
    [(cluster, name)] = ask(alias, "SELECT system_identifier::text, current_database() FROM pg_control_system()")
    return f"{cluster}/{name}"


def _first_mark() -> Mark:
    for table in ("access_tenant", "access_user", "documents_collection", "documents_document"):
        if ask(TARGET, f'SELECT 1 FROM "{table}" LIMIT 1'):  # noqa: S608
            raise CannotCopy(f"this database is not empty ({table}): begin with one that was only migrated")
    mark = Mark(identity(SOURCE))
    mark.keep()
    return mark


def lift_wall() -> None:
    """The owner is behind the wall as everybody is, and COPY would be refused. Until it is up again the owner is not;
    the application's role, which is not here, would be."""
    if not ask(TARGET, BYPASSES)[0][0]:
        for (table,) in ask(TARGET, WALLED, [True]):
            do(TARGET, f'ALTER TABLE "{table}" NO FORCE ROW LEVEL SECURITY')


def _put_wall_up() -> None:
    """Also where a killed process has lifted it. Not where it never is up for the owner (ADR 17)."""
    sharded_too = engine_for(connections[TARGET]).forced_walls
    for (table,) in ask(TARGET, WALLED, [False]):
        if sharded_too or not tables.is_of_documents(table):
            do(TARGET, f'ALTER TABLE "{table}" FORCE ROW LEVEL SECURITY')
