"""Where the big tables live. The only room that knows whether that is one Postgres or a Citus cluster."""

from __future__ import annotations

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper

from apps.access import tenancy

from .base import Engine, Part
from .citus import CitusEngine
from .postgres import PostgresEngine

_found: dict[str, Engine] = {}


def engine_for(connection: BaseDatabaseWrapper) -> Engine:
    """The engine of this database: SHARDING_ENGINE, or Citus when its extension is installed there. Asked once."""
    if connection.alias not in _found:
        clustered = tenancy.is_clustered(connection)
        _found[connection.alias] = CitusEngine() if clustered else PostgresEngine(settings.PARTITIONS)
    return _found[connection.alias]


__all__ = ["CitusEngine", "Engine", "Part", "PostgresEngine", "engine_for"]
