"""What a superuser does once to a PostgreSQL server before the product can own its database.

Run at every start of the embedded server, and by hand (or by `migrate`) against a real one: it is idempotent.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from .paths import APP_ROLE, DATABASE, OWNER_ROLE

#: In the database; those not shipped with the server are left out, except vector, which is needed.
EXTENSIONS = ("vector", "pg_trgm", "unaccent", "btree_gin", "pg_prewarm")

_ROLES = {
    OWNER_ROLE: "LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB CREATEROLE",
    APP_ROLE: "LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE",
}

# Under row-level security a condition that is not leakproof may not be checked before the tenant's own, so a
# GIN index on a tsvector would go unused (restriction_is_securely_promotable in the planner). `@@` tells
# nothing of a row it rejects: it raises no error that depends on its input.
_LEAKPROOF = "ALTER FUNCTION pg_catalog.ts_match_vq(tsvector, tsquery) LEAKPROOF"


def bootstrap(
    superuser_dsn: str,
    *,
    database: str = DATABASE,
    owner_password: str | None = None,
    app_password: str | None = None,
) -> None:
    """Make the two roles, the database with its extensions, and close the public schema to everyone else.

    `superuser_dsn` names any database of the server. Passwords are set where given, else left as they are.
    Raises psycopg.Error, for example when the role of the DSN is no superuser.
    """
    passwords = {OWNER_ROLE: owner_password, APP_ROLE: app_password}
    with psycopg.connect(superuser_dsn, autocommit=True) as connection:
        for role, attributes in _ROLES.items():
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
            verb = "ALTER" if known else "CREATE"
            statement = sql.SQL(f"{verb} ROLE {{}} {attributes}").format(sql.Identifier(role))
            if password := passwords[role]:
                statement += sql.SQL(" PASSWORD {}").format(sql.Literal(password))
            connection.execute(statement)
        # No IF NOT EXISTS for a database, and no transaction around it either.
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE template0").format(
                    sql.Identifier(database), sql.Identifier(OWNER_ROLE)
                )
            )
    with psycopg.connect(superuser_dsn, dbname=database) as connection:
        for extension in EXTENSIONS:
            _ensure_extension(connection, extension)
        connection.execute(_LEAKPROOF)
        connection.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(sql.Identifier(OWNER_ROLE)))
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(sql.Identifier(APP_ROLE)))


def _ensure_extension(connection: psycopg.Connection, name: str) -> None:
    """Create the extension, or bring it to the version the server ships."""
    row = connection.execute(
        "SELECT default_version, installed_version FROM pg_available_extensions WHERE name = %s", [name]
    ).fetchone()
    if row is None and name != "vector":
        return
    if row is None or row[1] is None:
        # In schema public, named: the statement would otherwise follow a search_path set on the role.
        connection.execute(sql.SQL("CREATE EXTENSION {} WITH SCHEMA public").format(sql.Identifier(name)))
    elif row[0] != row[1]:
        connection.execute(sql.SQL("ALTER EXTENSION {} UPDATE").format(sql.Identifier(name)))
