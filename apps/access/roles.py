"""The application's database role: made, and given its rights, by `migrate` as the owner."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import ProgrammingError, connections
from psycopg import errors, sql

#: The application reads and writes rows of these tables; partitions are reached through their parent only, because a
#: parent's policy does not apply to a partition that is queried directly.
TABLES = """
SELECT c.oid::regclass::text, c.relname FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND pg_has_role(current_user, c.relowner, 'USAGE')
ORDER BY c.relname
"""


def ensure_app_role(*, using: str = "owner") -> None:
    """Create the application's role with the password that settings derive, or set it again.

    Needs CREATEROLE. Where the owner lacks it and the role exists already (a managed server, DATABASE_APP_URL),
    nothing is changed.
    """
    target = settings.DATABASES["default"]
    if target["USER"] == settings.DATABASES[using]["USER"]:
        return  # reported by the system check access.E002
    role, password = sql.Identifier(target["USER"]), sql.Literal(target["PASSWORD"])
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [target["USER"]])
        exists = cursor.fetchone() is not None
        verb = sql.SQL("ALTER ROLE {} {}" if exists else "CREATE ROLE {} LOGIN NOSUPERUSER NOBYPASSRLS {}")
        secret = sql.SQL("PASSWORD {}").format(password)
        try:
            cursor.execute(verb.format(role, secret).as_string(cursor.connection))
        except ProgrammingError as error:
            if not (exists and isinstance(error.__cause__, errors.InsufficientPrivilege)):
                raise


def notice_who_has_left(*, using: str = "owner") -> None:
    """Let PostgreSQL end what nobody waits for any more: otherwise it would notice only when it answers, and hold locks
    and a processor until then. Where the owner of the tables does not own the database, nothing is changed."""
    with connections[using].cursor() as cursor:
        name = sql.Identifier(connections[using].settings_dict["NAME"]).as_string(cursor.connection)
        try:
            cursor.execute(f"ALTER DATABASE {name} SET client_connection_check_interval = '2s'")
        except ProgrammingError as error:
            if not isinstance(error.__cause__, errors.InsufficientPrivilege):
                raise


def grant_after_migrate(*, using: str, **_: Any) -> None:
    """post_migrate: let the application's role use the tables, not own them."""
    if using != "owner":
        return
    role = sql.Identifier(settings.DATABASES["default"]["USER"])
    with connections[using].cursor() as cursor:
        name = role.as_string(cursor.connection)
        cursor.execute(f"GRANT USAGE ON SCHEMA public TO {name}")
        cursor.execute(TABLES)
        read_only = {"django_migrations"} | {
            model._meta.db_table for model in apps.get_models() if getattr(model, "written_by_owner", False)
        }
        for table, plain in cursor.fetchall():  # one by one: a Citus cluster wants it so
            cursor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {name}")
            if plain in read_only:
                cursor.execute(f"REVOKE INSERT, UPDATE, DELETE ON {table} FROM {name}")
