"""Old answers are forgotten, with all that hangs on them, some at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from celery import current_app
from django.conf import settings
from django.db import connection
from django.test import override_settings
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents.models import Collection
from apps.generation import reports, retention
from apps.generation.models import Answer, AnswerSource, Feedback, LowAnswer, WeeklyReport
from tests.conftest import DATA, make_collection
from tests.support.asking import ask
from tests.support.processes import Server, wait_for, worker
from tests.support.refusals import refused

HANGING = (Answer, AnswerSource, Feedback, LowAnswer)


def aged(tenant: Tenant, answer: dict[str, Any], days: float) -> UUID:
    """As if it had been given then."""
    with tenancy.scope(tenant.id):
        Answer.objects.filter(id=answer["id"]).update(created_at=timezone.now() - timedelta(days=days))
    return UUID(answer["id"])


def rows(tenant: Tenant) -> list[int]:
    with tenancy.scope(tenant.id):
        return [model.objects.count() for model in HANGING]


def test_an_old_answer_goes_with_all_that_hangs_on_it(client: httpx.Client, tenant: Tenant, guide: Collection) -> None:
    old, young = ask(client), ask(client)
    replay = client.post(f"/api/v1/answers/{old['id']}/replay").json()
    for body in (old, young, replay):
        assert client.post(f"/api/v1/answers/{body['id']}/feedback", json={"rating": "down"}).status_code == 201
    today = timezone.now().date()
    reports.write(tenant_id=tenant.id, week=today - timedelta(days=today.weekday()))
    aged(tenant, old, 30.01)
    aged(tenant, young, 29.99)
    assert rows(tenant) == [3, 3, 3, 2]
    with override_settings(ANSWER_RETENTION_DAYS=30):
        assert retention.forget() >= 1
    assert rows(tenant) == [1, 1, 1, 1]
    with tenancy.scope(tenant.id):
        assert Answer.objects.get().id == UUID(young["id"]) and WeeklyReport.objects.get().voted_down == 2
    for body in (old, replay):
        refused(client.get(f"/api/v1/answers/{body['id']}"), 404)


def test_by_default_answers_are_kept(client: httpx.Client, tenant: Tenant, guide: Collection) -> None:
    answer = ask(client)
    aged(tenant, answer, 10_000)
    assert settings.ANSWER_RETENTION_DAYS == 0
    assert retention.forget() == 0
    assert client.get(f"/api/v1/answers/{answer['id']}").json() == answer


def test_those_of_all_tenants_go_a_few_at_a_time(
    client: httpx.Client,
    web: Server,
    tenant: Tenant,
    other_tenant: Tenant,
    guide: Collection,
    make_key: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_collection(other_tenant)
    with web.client(make_key(other_tenant)) as stranger:
        for _ in range(3):
            aged(other_tenant, ask(stranger), 400)
    for _ in range(3):
        aged(tenant, ask(client), 400)
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM generation_expired(now() - interval '300 days', 2)")
        assert cursor.fetchone() == (2,)
    current_app.loader.import_default_modules()
    with override_settings(ANSWER_RETENTION_DAYS=300):
        current_app.tasks["generation.forget"]()
    assert rows(tenant) == rows(other_tenant) == [0, 0, 0, 0]
    assert "generation.forget" in {each["task"] for each in settings.CELERY_BEAT_SCHEDULE.values()}


def test_a_worker_forgets_and_reports_when_beat_tells_it(
    client: httpx.Client, tenant: Tenant, guide: Collection
) -> None:
    aged(tenant, ask(client), 50)
    aged(tenant, ask(client, "zebra quantum chromodynamics?"), 8)
    with worker(DATA, "generate", name="keeper", pool="solo", ANSWER_RETENTION_DAYS="40"):
        for task in ("generation.forget", "generation.report"):
            current_app.send_task(task)
        wait_for(lambda: rows(tenant) == [1, 1, 0, 1], seconds=60, what="the worker")
    [report] = client.get("/api/v1/answers/reports").json()["results"]
    assert (report["answers"], report["abstained"]) == (1, 1)
