"""A database that an installation is moved to by `manage.py copy-from`, and the one that it is moved from."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from apps.access import tenancy
from apps.documents import partitions
from ragsite.embedded import paths
from tests.conftest import DATA
from tests.support.processes import ROOT, Process

CLUSTER = os.environ.get("CITUS_DATABASE_URL", "")
SOURCE = paths.superuser_url(DATA).replace("/postgres?", f"/{paths.DATABASE}?")
SETTING = (
    "SELECT each FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase AND datname = 'ragsite',"
    " unnest(setconfig) AS each WHERE starts_with(each, 'default_transaction_read_only=')"
)
WRITING = "-c default_transaction_read_only=off"  # also where only the copying may


class Target:
    """The database that is copied to, and the product on it."""

    def __init__(self, url: str, **environment: str) -> None:
        self.url, self.environment = url, environment | {"DATABASE_URL": url}
        self.clustered = url == CLUSTER

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        return subprocess.run(command, env=os.environ | self.environment, cwd=ROOT, capture_output=True, text=True)

    def copy(self, *options: str, refused: str = "", source: str = SOURCE) -> str:
        """What it says; `refused` is part of why it must not be done."""
        done = self.manage("copy-from", source, *options)
        said = done.stdout + done.stderr
        assert (done.returncode == 0) == (not refused) and refused in said, said
        return said

    def begin_copy(self, name: str) -> Process:
        return Process(DATA, name, "manage", "copy-from", SOURCE, "--streams", "1", **self.environment)

    def ask(self, statement: str, tenant: UUID | None = None) -> list[tuple[Any, ...]]:
        """As the owner, who is behind the wall."""
        with psycopg.connect(self.url, options=WRITING) as session:
            session.execute(tenancy.REACH_THE_SHARDS)
            session.execute(sql.SQL("SET LOCAL ragsite.tenant = {}").format(str(tenant or "")))
            found = session.execute(statement)  # type: ignore[arg-type]
            return found.fetchall() if found.description else []

    @property
    def unwalled(self) -> set[str]:
        """Tables whose wall the owner may look over and should not, or the other way round (ADR 17)."""
        tables = self.ask(
            "SELECT relname, relforcerowsecurity FROM pg_class WHERE relrowsecurity AND relkind IN ('r', 'p')"
        )
        return {
            name
            for name, forced in tables
            if forced == (self.clustered and (name in partitions.TABLES or name.startswith("embedding_")))
        }

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """What the owner sees without a tenant."""
        return self.ask("SELECT 1 FROM access_tenant LIMIT 1")


def empty(url: str) -> None:
    """A database that its owner may have used before."""
    with psycopg.connect(url, autocommit=True) as session:
        mine = "relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
        named = session.execute(
            "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class"  # type: ignore[arg-type]
            f" WHERE {mine} AND pg_get_userbyid(relowner) = current_user"
        ).fetchone()
        if named and named[0]:
            session.execute(f"DROP TABLE {named[0]} CASCADE")
        own = (
            "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            " AND pg_get_userbyid(proowner) = current_user"
            " AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = pg_proc.oid AND d.deptype = 'e')"
        )
        for (function,) in session.execute(own).fetchall():
            session.execute(f"DROP FUNCTION {function}")
