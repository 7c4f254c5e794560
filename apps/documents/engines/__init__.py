"""Where the big tables live. The only room that knows whether that is one Postgres or a Citus cluster."""

from __future__ import annotations

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper

from .base import Engine
from .citus import CitusEngine
from .postgres import PostgresEngine

_found: dict[str, Engine] = {}


def engine_for(connection: BaseDatabaseWrapper) -> Engine:
    """The engine of this database: SHARDING_ENGINE, or Citus when its extension is installed there. Asked once."""
    if connection.alias not in _found:
        _found[connection.alias] = _look(connection)
    return _found[connection.alias]


def _look(connection: BaseDatabaseWrapper) -> Engine:
    chosen = settings.SHARDING_ENGINE
    if chosen == "auto":
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_extension WHERE extname = 'citus'")
            chosen = "citus" if cursor.fetchone() else "postgres"
    return CitusEngine() if chosen == "citus" else PostgresEngine(settings.PARTITIONS)


__all__ = ["CitusEngine", "Engine", "PostgresEngine", "engine_for"]
