"""Schedules: beat ticks, the database knows what is due, and a tick that is lost, late or doubled changes nothing."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import schedules
from apps.documents.models import Collection, Reindex, Source, SyncRun
from apps.documents.sources import verbs
from tests.conftest import make_collection
from tests.support.processes import Workers, wait_for

from .test_sync import change, documents, make


@pytest.fixture
def source(collection: Collection, tmp_path: Path) -> Source:
    (tmp_path / "page.txt").write_text("A page.")
    return make(collection, path=str(tmp_path), watch=False)


def scheduled(source: Source) -> list[SyncRun]:
    with tenancy.scope(source.tenant_id):
        return list(SyncRun.objects.filter(source=source, trigger="schedule").order_by("created_at"))


def move_back(source: Source, **ago: int) -> None:
    """As if its last slot had been a while ago."""
    with tenancy.scope(source.tenant_id):
        Source.objects.filter(id=source.id).update(slot=timezone.now() - timedelta(**ago))


@pytest.mark.parametrize(
    ("crontab", "after", "due"),
    [
        ("0 3 * * *", "2026-11-22T03:00:00", "2026-11-23T03:00:00"),
        ("0 3 * * *", "2026-11-22T02:59:59", "2026-11-22T03:00:00"),
        ("*/15 * * * *", "2026-11-22T03:14:30", "2026-11-22T03:15:00"),
        ("30 6 * * mon-fri", "2026-11-21T00:00:00", "2026-11-23T06:30:00"),
        ("0 0 29 2 *", "2026-11-22T00:00:00", "2028-02-29T00:00:00"),
    ],
)
def test_the_next_time_is_told(crontab: str, after: str, due: str) -> None:
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert schedules.next_after(crontab, moment) == datetime.fromisoformat(due).replace(tzinfo=UTC)


def test_what_is_due_is_requested_once_however_often_one_asks(source: Source) -> None:
    change(source, schedule="*/5 * * * *")
    schedules.start_due()
    assert not scheduled(source)  # it has just been given its schedule
    move_back(source, hours=2)
    threads = [threading.Thread(target=_start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(scheduled(source)) == 1  # 24 times were missed: one run makes up for them
    schedules.start_due()
    assert len(scheduled(source)) == 1


def _start() -> None:
    try:
        schedules.start_due()
    finally:
        connection.close()


def test_a_source_that_is_switched_off_is_not_due(source: Source) -> None:
    change(source, schedule="* * * * *", enabled=False)
    move_back(source, hours=1)
    schedules.start_due()
    assert not scheduled(source)
    change(source, enabled=True)
    schedules.start_due()
    assert len(scheduled(source)) == 1


def test_beat_knows_of_it_and_forgets_it(source: Source) -> None:
    name = f"source {source.id}"
    change(source, schedule="0 3 * * *")
    task = PeriodicTask.objects.get(name=name)
    assert (task.task, str(task.crontab.hour), task.enabled) == (schedules.TASK, "3", True)
    change(source, schedule="0 4 * * *", enabled=False)
    task.refresh_from_db()
    assert (str(task.crontab.hour), task.enabled) == ("4", False)
    change(source, schedule="")
    assert not PeriodicTask.objects.filter(name=name).exists()
    change(source, schedule="0 3 * * *", enabled=True)
    with tenancy.scope(source.tenant_id):
        verbs.delete(source=verbs.find(source.id), documents=False)
    assert not PeriodicTask.objects.filter(name=name).exists()


def test_beats_table_tells_nothing_of_a_tenant(source: Source) -> None:
    change(source, schedule="0 3 * * *", name="Secret project")
    task = PeriodicTask.objects.get(name=f"source {source.id}")
    told = " ".join(str(value) for value in vars(task).values())
    assert "Secret" not in told and str(source.tenant_id) not in told and source.settings["path"] not in told


def test_a_schedule_runs_by_itself(source: Source, workers: Workers) -> None:
    change(source, schedule="* * * * *")
    wait_for(lambda: scheduled(source), seconds=130, what="beat's tick")
    wait_for(lambda: scheduled(source)[0].state == "done", what="the run")
    assert "page.txt" in documents(source)


def test_a_tick_that_was_lost_is_made_up_for(source: Source, workers: Workers) -> None:
    change(source, schedule="0 0 1 1 *")
    move_back(source, days=400)  # beat will not tick before January: the minute's look at the database finds it
    wait_for(lambda: scheduled(source), seconds=130, what="the look")


def test_schedules_of_all_tenants_are_started(source: Source, other_tenant: Tenant, tmp_path: Path) -> None:
    other: Any = make(make_collection(other_tenant, slug="theirs"), path=str(tmp_path), watch=False)
    for each in (source, other):
        change(each, schedule="0 3 * * *")
        move_back(each, days=2)
    schedules.start_due()
    assert len(scheduled(source)) == 1 and len(scheduled(other)) == 1


def test_a_collection_is_reindexed_by_its_schedule(client: httpx.Client, collection: Collection) -> None:
    path = f"/api/v1/collections/{collection.slug}"
    assert client.get(path).json()["reindexing"] == {"schedule": None, "everything": False}
    changed = client.patch(path, json={"reindexing": {"schedule": "0  3 * * 0", "everything": True}}).json()
    assert changed["reindexing"] == {"schedule": "0 3 * * 0", "everything": True}
    assert PeriodicTask.objects.filter(name=f"reindex {collection.id}", task=schedules.TASK).exists()
    schedules.start_due()
    with tenancy.scope(collection.tenant_id):
        assert not Reindex.objects.exists()
        Collection.objects.filter(id=collection.id).update(reindexing_slot=timezone.now() - timedelta(days=30))
    assert client.patch(path, json={"name": "Renamed"}).json()["reindexing"]["schedule"] == "0 3 * * 0"
    for _ in range(2):
        schedules.start_due()
    with tenancy.scope(collection.tenant_id):
        run = Reindex.objects.get()
        assert (run.trigger, run.everything) == ("schedule", True) and run.slot is not None
    refused = client.patch(path, json={"reindexing": {"schedule": "0 3 * *"}})
    assert refused.status_code == 400 and refused.json()["errors"][0]["pointer"] == "/reindexing/schedule"
    assert client.patch(path, json={"reindexing": {"schedule": None}}).json()["reindexing"]["schedule"] is None
    assert not PeriodicTask.objects.filter(name=f"reindex {collection.id}").exists()
    client.patch(path, json={"reindexing": {"schedule": "0 3 * * 0"}})
    assert client.delete(path).status_code == 204
    assert not PeriodicTask.objects.filter(name=f"reindex {collection.id}").exists()
