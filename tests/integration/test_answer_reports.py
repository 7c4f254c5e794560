"""The weekly report of questions that were answered badly: written once, told by API, gone with its answers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from celery import current_app
from django.conf import settings
from django.db import connections
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import erasure, remove
from apps.documents.models import Collection
from apps.generation import reports
from apps.generation.models import Answer, Feedback, LowAnswer, WeeklyReport
from tests.support.asking import ask
from tests.support.processes import Server
from tests.support.refusals import refused

REPORTS = "/api/v1/answers/reports"
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
AFTER = MONDAY + timedelta(days=7, hours=2)
GOOD = "When do backups run every night?"
BAD = "zebra quantum chromodynamics?"


def asked_at(tenant: Tenant, moment: datetime, answer: dict[str, Any], **changes: Any) -> UUID:
    """As if it had been asked then."""
    with tenancy.scope(tenant.id):
        Answer.objects.filter(id=answer["id"]).update(created_at=moment, **changes)
    return UUID(answer["id"])


def vote(client: httpx.Client, tenant: Tenant, moment: datetime, answer_id: UUID, rating: str) -> None:
    body = {"rating": rating, "comment": "At 02:30 UTC?"}
    assert client.post(f"/api/v1/answers/{answer_id}/feedback", json=body).status_code == 201
    with tenancy.scope(tenant.id):
        Feedback.objects.filter(answer=answer_id).update(created_at=moment)


@pytest.fixture
def week(client: httpx.Client, tenant: Tenant, guide: Collection) -> dict[str, UUID]:
    """A week's answers, one of the week before that was voted down in this, and one of the next."""
    moment, second = MONDAY + timedelta(days=3), timedelta(seconds=1)
    found = {
        "good": asked_at(tenant, moment, ask(client, GOOD)),
        "abstained": asked_at(tenant, MONDAY + timedelta(days=7) - second, ask(client, BAD)),
        "half": asked_at(tenant, moment, ask(client, GOOD), grounded=0.5),
        "ungrounded": asked_at(tenant, MONDAY, ask(client, GOOD), grounded=0.25),
        "hardly": asked_at(tenant, moment, ask(client, GOOD), grounded=0.1),
        "down": asked_at(tenant, moment, ask(client, GOOD)),
        "before": asked_at(tenant, MONDAY - second, ask(client, GOOD)),
        "earlier": asked_at(tenant, MONDAY - second, ask(client, BAD)),
        "later": asked_at(tenant, MONDAY + timedelta(days=7), ask(client, BAD)),
    }
    replay = client.post(f"/api/v1/answers/{found['abstained']}/replay").json()
    found["replay"] = asked_at(tenant, moment, replay)
    vote(client, tenant, moment, found["good"], "up")
    for name in ("down", "before", "replay"):
        vote(client, tenant, moment, found[name], "down")
    return found


def test_a_week_is_reported_once_with_the_worst_first(
    client: httpx.Client, tenant: Tenant, week: dict[str, UUID]
) -> None:
    reports.write_due(MONDAY + timedelta(days=7, minutes=59))
    assert [each["week"] for each in client.get(REPORTS).json()["results"]] == ["2026-02-23"], "it is not over"
    assert reports.write_due(AFTER) >= 1 and reports.write_due(AFTER) == 0
    listed = client.get(REPORTS).json()["results"]
    assert [each["week"] for each in listed] == ["2026-03-02", "2026-02-23"]
    assert {name: listed[0][name] for name in ("answers", "voted_down", "ungrounded", "abstained")} == {
        **{"answers": 6, "voted_down": 2, "ungrounded": 2, "abstained": 1}
    }
    report = client.get(f"{REPORTS}/{listed[0]['id']}").json()
    assert {name: report[name] for name in listed[0]} == listed[0]
    low = report["low"]
    assert {each["answer_id"] for each in low[:2]} == {str(week["down"]), str(week["before"])}
    assert [each["answer_id"] for each in low[2:]] == [
        str(week[name]) for name in ("hardly", "ungrounded", "abstained")
    ]
    assert [each["reasons"] for each in low] == [
        *(["voted_down"], ["voted_down"], ["ungrounded"], ["ungrounded"], ["abstained"])
    ]
    assert low[0]["question"] == GOOD and "02:30" in low[0]["answer"] and low[0]["model"] == "extractive"
    assert low[0]["feedback"][0]["comment"] == "At 02:30 UTC?" and low[2]["feedback"] == []


def test_many_at_once_write_one(tenant: Tenant, week: dict[str, UUID]) -> None:
    def write(_: int) -> bool:
        try:
            return reports.write(tenant_id=tenant.id, week=MONDAY.date())
        finally:
            connections.close_all()

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(write, range(12))) == 1
    with tenancy.scope(tenant.id):
        assert WeeklyReport.objects.count() == 1 and LowAnswer.objects.count() == 5


def test_weeks_that_beat_missed_are_made_up_for(client: httpx.Client, tenant: Tenant, week: dict[str, UUID]) -> None:
    current_app.loader.import_default_modules()
    monday = (timezone.now() - timedelta(days=timezone.now().weekday())).replace(hour=12)
    for number in (1, 4, 5):
        asked_at(tenant, monday - timedelta(days=7 * number), ask(client, BAD))
    current_app.tasks["generation.report"]()
    weeks = [datetime.fromisoformat(each["week"]) for each in client.get(REPORTS).json()["results"]]
    assert [(monday.date() - each.date()).days // 7 for each in weeks] == [1, 4]
    assert {"generation.report"} <= {each["task"] for each in settings.CELERY_BEAT_SCHEDULE.values()}


def test_a_report_holds_no_text_and_its_answers_go_with_their_sources(
    client: httpx.Client, tenant: Tenant, week: dict[str, UUID]
) -> None:
    reports.write_due(AFTER)
    report = client.get(REPORTS).json()["results"][0]
    with tenancy.scope(tenant.id):
        [document_id] = {each.document_id for each in Answer.objects.get(id=week["down"]).sources.all()}
        assert erasure.traces(document_id)["generation_lowanswer"] >= 4
    remove.delete(tenant_id=tenant.id, document_id=document_id, erase=True)
    with tenancy.scope(tenant.id):
        assert set(erasure.traces(document_id).values()) == {0}
    shown = client.get(f"{REPORTS}/{report['id']}")
    assert "02:30" not in shown.text and shown.json()["voted_down"] == 2
    assert [each["question"] for each in shown.json()["low"]] in ([], [BAD])


def test_reports_need_read_and_stay_behind_the_wall(
    client: httpx.Client,
    tenant: Tenant,
    other_tenant: Tenant,
    week: dict[str, UUID],
    make_key: Callable[..., str],
    web: Server,
) -> None:
    reports.write_due(AFTER)
    path = f"{REPORTS}/{client.get(REPORTS).json()['results'][0]['id']}"
    with web.client(make_key(other_tenant)) as stranger:
        assert stranger.get(REPORTS).json()["results"] == []
        refused(stranger.get(path), 404)
    with web.client(make_key(tenant, "write", "admin")) as writer:
        refused(writer.get(REPORTS), 403, "missing_scope")
        refused(writer.get(path), 403, "missing_scope")
    refused(client.get(f"{REPORTS}/{uuid4()}"), 404)
    assert WeeklyReport.objects.count() == LowAnswer.objects.count() == 0
