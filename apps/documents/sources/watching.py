"""Watched folders: a sync is requested as soon as something in one changes. A thread of each sync worker does it.

A worker on another machine watches what it can see of them; doubled wishes are one run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import UUID

from django.db import DatabaseError, connection
from psycopg_pool import PoolTimeout

from apps.access import tenancy

from .. import db
from ..connectors.watch import watch
from . import runs
from .models import Source, SyncRun

logger = logging.getLogger(__name__)

LIST_SECONDS = 5.0  # how often we ask which folders are to be watched

Key = tuple[UUID, UUID]  # tenant, source


def start(stop: threading.Event) -> threading.Thread:
    """Watch in a thread of this process until `stop` is set."""
    thread = threading.Thread(target=_forever, args=(stop,), name="watch", daemon=True)
    thread.start()
    return thread


def _forever(stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            for changed in watch(_folders(), stop):
                _request(changed)
        except Exception:
            logger.exception("folders are not watched for a moment")
            connection.close()
            stop.wait(LIST_SECONDS)


def _request(changed: set[Key]) -> None:
    try:
        for tenant_id, source_id in changed:
            with tenancy.scope(tenant_id):
                runs.request(source_id=source_id, trigger=SyncRun.Trigger.CHANGE)
    finally:
        connection.close()


def _folders() -> Callable[[], Mapping[Key, Path]]:
    """Which folders are to be watched; those of a moment ago while the database is away."""
    known: dict[Key, Path] = {}
    asked_at = float("-inf")

    def folders() -> Mapping[Key, Path]:
        nonlocal known, asked_at
        if time.monotonic() - asked_at > LIST_SECONDS:
            asked_at = time.monotonic()
            try:
                known = _list()
            except (DatabaseError, PoolTimeout) as error:
                logger.warning("cannot ask which folders are watched: %s", error)
            finally:
                connection.close()
        return known

    return folders


def _list() -> dict[Key, Path]:
    found: dict[Key, Path] = {}
    for tenant_id, source_id in db.rows("watched"):
        with tenancy.scope(tenant_id):
            settings = Source.objects.values_list("settings", flat=True).filter(id=source_id).first()
        if settings is not None:
            found[tenant_id, source_id] = Path(settings["path"])
    return found
