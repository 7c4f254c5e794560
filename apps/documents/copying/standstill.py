"""Nobody writes to the source any more, and everybody may go on reading it.

The database itself is set to read-only transactions, so that whoever connects from then on cannot write, by whichever
way; and the sessions from before are ended. A request that wants to write is told so (`read_only`, access/problems.py).
"""

from __future__ import annotations

import time

from django.db import Error, connections

from . import SOURCE
from .errors import CannotCopy
from .parts import ask, do

#: By which the sessions that copy are told from those that are ended.
NAME = "ragsite copy-from"
OTHERS = """
FROM pg_stat_activity s JOIN pg_roles r ON r.oid = s.usesysid
WHERE s.datname = current_database() AND s.backend_type = 'client backend' AND NOT r.rolsuper
  AND s.application_name <> %s AND s.backend_start < %s
"""
#: The one of those to end first: it does nothing, or has written. A pool gives out last what has come to rest last.
RESTING = OTHERS + "AND (s.state = 'idle' OR s.backend_xid IS NOT NULL) ORDER BY s.state_change DESC LIMIT 1"
#: Without the first the sessions of others show neither name nor time, and none would seem to be left.
RIGHTS = "SELECT r FROM unnest('{pg_read_all_stats, pg_signal_backend}'::name[]) r WHERE NOT pg_has_role(r, 'USAGE')"
#: Roles whose own setting comes before the database's: their sessions would write on.
UNBOUND = """
SELECT r.rolname FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS each
WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND r.rolcanlogin AND NOT r.rolsuper
  AND split_part(each, '=', 1) = 'default_transaction_read_only'
  AND lower(split_part(each, '=', 2)) NOT IN ('on', 'true', 'yes', '1')
"""
PATIENCE = 3.0  # s, in which a search comes to its end
SECONDS = 30.0


def stop() -> None:
    """Raises CannotCopy, with the source as it was unless it says otherwise, where this cannot be done."""
    if lacking := ask(SOURCE, RIGHTS):
        raise CannotCopy(f"the source's role is no superuser and not in {lacking[0][0]}: it cannot stop the writers")
    if unbound := ask(SOURCE, UNBOUND):
        name = unbound[0][0]
        raise CannotCopy(
            f"the source's role {name} would go on writing, by a setting of its own: ALTER ROLE {name}"
            " RESET default_transaction_read_only (or IN DATABASE ... RESET)"
        )
    try:
        _set("SET default_transaction_read_only = on")
        _end_sessions()
        if ask(SOURCE, "SELECT 1 FROM pg_prepared_xacts WHERE database = current_database()"):
            raise CannotCopy("a prepared transaction is open at the source: commit it or roll it back")
    except BaseException as error:
        reopen()
        if isinstance(error, Error):
            raise CannotCopy(f"the source's writers could not be stopped: {error}") from error
        raise


def reopen() -> None:
    """Let the source take writes again. Raises CannotCopy where it cannot be told to."""
    connections[SOURCE].close()  # it may have been cut off
    try:
        _set("RESET default_transaction_read_only")
    except Error as error:
        raise CannotCopy(
            f"the source takes no writes still, and cannot be told to. When it answers, run --reopen: {error}"
        ) from error
    _end_sessions()  # those that may not write


def _set(what: str) -> None:
    [(name,)] = ask(SOURCE, "SELECT quote_ident(current_database())")
    do(SOURCE, "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
    do(SOURCE, f"ALTER DATABASE {name} {what}")


def _end_sessions() -> None:
    """Of all who are bound by the wall, begun before now. Who reads may come to an end, for a while. Looked at twice:
    one that is just beginning is not listed yet."""
    [(now,)] = ask(SOURCE, "SELECT clock_timestamp()")
    began, quiet = time.monotonic(), 0
    while quiet < 2:
        waited = time.monotonic() - began
        some = RESTING if waited < PATIENCE else OTHERS
        ask(SOURCE, f"SELECT pg_terminate_backend(pid) FROM (SELECT s.pid {some}) ended", [NAME, now])  # noqa: S608
        left = ask(SOURCE, "SELECT count(*) " + OTHERS, [NAME, now])[0][0]
        quiet = quiet + 1 if not left else 0
        if waited > SECONDS:
            raise CannotCopy(f"{left} sessions of the source do not end")
        time.sleep(0.005 if left else 0.2)
