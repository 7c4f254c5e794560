"""Queries as rows: claimed, lost, shed, forgotten. No worker but the victims runs beside these tests."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from celery import current_app
from django.conf import settings
from django.test import override_settings
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.problems import Problem
from apps.access.redis import redis_client
from apps.documents.models import Collection
from apps.generation import queries
from apps.generation.models import Answer, Query
from apps.generation.types import AnswerRequest
from tests.conftest import DATA
from tests.support.fake_llm import FakeServer
from tests.support.processes import Process, Server, free_port, wait_for, worker
from tests.support.querying import ANSWER, QUERIES, Event, ask, follow, state, told
from tests.support.refusals import refused


@pytest.fixture(autouse=True)
def _alone(tenant: Tenant) -> Iterator[None]:
    """The queue is that of all tenants."""
    yield
    with tenancy.scope(tenant.id):
        Query.objects.all().delete()


def change(tenant: Tenant, query: str, **values: Any) -> None:
    with tenancy.scope(tenant.id):
        assert Query.objects.filter(id=query).update(**values) == 1


def lose_lease(tenant: Tenant, query: str) -> None:
    """As if the worker had been silent for so long."""
    change(tenant, query, lease_until=timezone.now() - timedelta(seconds=1))


def test_kill_9_while_it_answers(client: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    """Another worker begins anew; whoever has followed hears of it."""
    llm.go.clear()

    def start(name: str) -> Process:
        return worker(DATA, "generate", "default", name=name, pool="threads", LLM_URL=llm.url, JOB_LEASE_SECONDS="2")

    query = ask(client, "When do backups run? script:held")
    with start("victim") as victim, ThreadPoolExecutor(1) as reader:
        first = follow(client, query, until="02:30")
        rest = reader.submit(follow, client, query, first[-1][0])
        victim.kill()
        llm.go.set()
        with start("heir"):
            wait_for(lambda: swept() and state(client, query)["state"] == "done", every=0.5, what="the heir")
            events = first + rest.result()
    assert [name for _, name, _ in events].count("restart") == 1
    assert told(events) == events[-1][2]["answer"] == ANSWER
    assert state(client, query)["attempts"] == 2
    assert follow(client, query) == rest.result()[1:], "who comes now hears of the last attempt alone"


def test_whatever_dies_every_query_is_answered_once_and_told_as_it_is(
    client: httpx.Client, tenant: Tenant, guide: Collection, llm: FakeServer
) -> None:
    """Workers are killed and Redis is flushed all the time, and readers leave and come back."""
    dice = random.Random(7)
    asked = [ask(client, f"When do backups run? ({number}) script:paced") for number in range(24)]

    def start(name: str) -> Process:
        shape = {"name": name, "pool": "threads", "threads": 4}
        return worker(
            DATA, "generate", "default", **shape, LLM_URL=llm.url, JOB_LEASE_SECONDS="2", JOB_MAX_ATTEMPTS="20"
        )

    def read(query: str, seed: int) -> list[Event]:
        own, events = random.Random(seed), []
        while not events or events[-1][1] not in ("final_answer", "error"):
            last = events[-1][0] if events else ""
            events += follow(client, query, last, most=own.randint(1, 60), seconds=120)
        return events

    running = [start("one0"), start("two0")]
    try:
        with ThreadPoolExecutor(len(asked)) as readers:
            told_of = {query: readers.submit(read, query, seed) for seed, query in enumerate(asked)}
            for turn in range(1, 5):
                wait_for(lambda: swept() and len(listed(client, state="running")) > 3, seconds=30, what="some work")
                time.sleep(dice.uniform(0, 0.8))
                redis_client().flushall()
                victim = turn % 2
                running[victim].kill()
                running[victim] = start(f"{victim}{turn}")
            wait_for(lambda: swept() and len(listed(client, state="done")) == 24, seconds=90, every=0.5, what="all")
            found = {query: each.result() for query, each in told_of.items()}
    finally:
        for process in running:
            process.kill()
    for query, events in found.items():
        body = state(client, query)
        assert events[-1][2] == body["answer"] and told(events) == body["answer"]["answer"]
        places = [tuple(map(int, each.split("-"))) for each, _, _ in events]
        assert places == sorted(set(places))
        after = events[max((index for index, each in enumerate(events) if each[1] == "restart"), default=-1) + 1 :]
        assert [each[2] for each in after if each[1] == "citation"] == body["answer"]["citations"]
    assert max(each["attempts"] for each in listed(client)) > 1, "somebody was killed at work"
    with tenancy.scope(tenant.id):
        assert Answer.objects.count() == 24


def swept() -> bool:
    """What beat does."""
    current_app.send_task("generation.sweep", queue="default", expires=5)
    return True


def test_redis_is_flushed_while_a_query_waits(client: httpx.Client, guide: Collection) -> None:
    query = ask(client, "When do backups run every night?")
    assert redis_client().llen("generate") >= 1
    redis_client().flushall()
    with worker(DATA, "generate", "default", name="finder", pool="threads"):
        wait_for(lambda: swept() and state(client, query)["state"] == "done", every=0.5, what="the answer")


def test_without_redis_queries_are_accepted_and_answered(
    tenant: Tenant, guide: Collection, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    with Server(DATA, REDIS_URL=nowhere) as lonely, lonely.client(api_key) as client:
        query = ask(client, "When do backups run every night?")
        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(follow, client, query)
            monkeypatch.setattr(settings, "REDIS_URL", nowhere)
            redis_client.cache_clear()
            try:
                assert queries.work()
            finally:
                redis_client.cache_clear()
            events = following.result()
        assert [name for _, name, _ in events][-1] == "final_answer"
        assert told(events) == events[-1][2]["answer"] == state(client, query)["answer"]["answer"]
        other = ask(client, "And what else?")
        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(follow, client, other)
            assert client.post(f"{QUERIES}/{other}/cancel").status_code == 200
            assert following.result()[-1][2]["code"] == "cancelled"


def test_urgent_comes_before_normal_and_normal_before_low_but_nothing_waits_for_ever(
    client: httpx.Client, guide: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_turns", iter(range(100)))
    asked = [ask(client, f"When? {number}", priority=priority) for number, priority in enumerate(["low"] * 3)]
    asked += [ask(client, "When?", priority="normal"), ask(client, "When?"), ask(client, "When?")]
    asked += [ask(client, "When?", priority="urgent") for _ in range(6)]
    while queries.work():
        pass
    ended = [each["id"] for each in sorted(listed(client), key=lambda each: each["finished_at"])]
    low, normal, urgent = asked[:3], asked[3:6], asked[6:]
    expected = [*urgent[:3], normal[0], *urgent[3:6], low[0], normal[1], normal[2], low[1], low[2]]
    assert ended == expected


def listed(client: httpx.Client, **parameters: str) -> list[dict[str, Any]]:
    return client.get(QUERIES, params=parameters).json()["results"]


def test_the_list_is_newest_first_and_by_state(client: httpx.Client, guide: Collection) -> None:
    first, second = ask(client, "When?"), ask(client, "Where?")
    assert [each["id"] for each in listed(client)] == [second, first]
    assert client.post(f"{QUERIES}/{first}/cancel").json()["state"] == "cancelled"
    assert [each["id"] for each in listed(client, state="queued")] == [second]
    assert [name for _, name, _ in follow(client, first)] == ["error"]
    assert refused(client.get(QUERIES, params={"state": "lost"}), 400)["errors"][0]["pointer"] == "/state"
    assert queries.work() and not queries.work(), "what is cancelled is not answered"


def test_a_body_is_that_of_an_answer_but_for_the_stream(client: httpx.Client) -> None:
    for field, value in (("stream", True), ("priority", "later"), ("k", 0), ("nonsense", 1)):
        problem = refused(client.post(QUERIES, json={"question": "When?", field: value}), 400)
        assert problem["errors"][0]["pointer"] == f"/{field}"
    missing = "00000000-0000-0000-0000-000000000000"
    for path in ("", "/events"):
        refused(client.get(f"{QUERIES}/{missing}{path}"), 404)


def test_a_query_may_go_on_with_a_conversation(client: httpx.Client, guide: Collection) -> None:
    conversation = client.post("/api/v1/conversations").json()["id"]
    asked = [ask(client, question, conversation=conversation) for question in ("When do backups run?", "How long?")]
    assert queries.work() and queries.work()
    turns = client.get(f"/api/v1/conversations/{conversation}").json()["turns"]
    assert [each["id"] for each in turns] == asked
    assert "backups" in state(client, asked[1])["answer"]["standalone_question"]


def test_who_has_lost_a_query_changes_nothing(client: httpx.Client, tenant: Tenant, guide: Collection) -> None:
    query = ask(client, "When do backups run every night?")
    late = queries._claim(0)
    assert late is not None and late.id == UUID(query)
    lose_lease(tenant, query)
    assert queries.work()
    whole = follow(client, query)
    assert whole[-1][1] == "final_answer" and state(client, query)["attempts"] == 2
    told_late = queries._writer(late)
    told_late.add(queries.Event("search_results", {"results": []}))
    queries._fail(late, told_late, {"status": 500, "code": "internal", "detail": "late"})
    assert follow(client, query) == whole and state(client, query)["state"] == "done"
    with pytest.raises(queries.LostLease):
        queries._answer(late, told_late)
    with tenancy.scope(tenant.id):
        assert Answer.objects.count() == 1


def test_a_worker_that_died_between_the_answer_and_the_end(
    client: httpx.Client, tenant: Tenant, guide: Collection
) -> None:
    query = ask(client, "When do backups run every night?")
    assert queries.work()
    before = follow(client, query)
    change(tenant, query, state="running", answer=None, lease_until=timezone.now() - timedelta(seconds=1))
    assert queries.work()
    found = state(client, query)
    assert (found["state"], found["answer"]) == ("done", before[-1][2])
    rest = follow(client, query, before[-2][0])
    assert rest[0][1] == "restart" and told(before + rest) == found["answer"]["answer"]


def test_what_kills_its_workers_is_dead_in_the_end(client: httpx.Client, tenant: Tenant, guide: Collection) -> None:
    query = ask(client, "When do backups run?")
    for attempt in range(1, settings.JOB_MAX_ATTEMPTS + 1):
        held = queries._claim(0)
        assert held is not None and held.attempts == attempt
        lose_lease(tenant, query)
    assert queries.work()
    found = state(client, query)
    assert (found["state"], found["error"]["code"]) == ("dead", "worker_lost")
    assert follow(client, query)[-1][2]["code"] == "worker_lost"
    assert client.post(f"{QUERIES}/{query}/retry").json()["state"] == "queued"
    assert queries.work() and state(client, query)["state"] == "done"


def test_an_over_full_queue_refuses(client: httpx.Client, tenant: Tenant, guide: Collection, api_key: str) -> None:
    with override_settings(QUERY_RETENTION_DAYS=-1):
        queries.forget()  # the pace is that of all tenants: of other tests as well
    ask(client, "When do backups run?")
    assert queries.work()
    now = timezone.now()
    with tenancy.scope(tenant.id):  # four seconds an answer
        Query.objects.update(started_at=now - timedelta(seconds=4), finished_at=now)
    with Server(DATA, QUERY_MAX_WAIT_SECONDS="10") as web, web.client(api_key) as busy:
        asked = [ask(busy, "When?", priority="normal") for _ in range(3)]
        ask(busy, "When?")  # some of eight threads may be idle
        for query in asked:
            change(tenant, query, created_at=now - timedelta(seconds=2))
        response = busy.post(QUERIES, json={"question": "When?"})  # none is, and there is but one
        assert refused(response, 503)["code"] == "overloaded" and response.headers["retry-after"] in "67"
        assert len(listed(busy, state="queued")) == 4
        ask(busy, "When?", priority="urgent")  # the others wait for it
        assert busy.post(QUERIES, json={"question": "When?", "priority": "low"}).headers["retry-after"] == "10"
        exported = busy.get("/metrics").text
        assert 'rag_queries_waiting{priority="normal"} 4.0' in exported and "rag_queries_running 0.0" in exported
        wait = re.search(r'^rag_query_expected_wait_seconds{priority="low"} (\S+)$', exported, re.MULTILINE)
        assert wait and float(wait[1]) == pytest.approx(20)
        held = [queries._claim(0), queries._claim(0)]
        with tenancy.scope(tenant.id):  # however long this has taken: what has waited counts as well
            Query.objects.filter(state="queued").update(created_at=timezone.now() - timedelta(seconds=2))
        assert queries.queue().running == 2 and queries.queue().expected_wait(2) == pytest.approx(3 * 4 / 2)
        for each in held:
            assert each is not None
            lose_lease(tenant, str(each.id))
        while queries.work():
            pass
        ask(busy, "When?", priority="low")


def test_where_something_waits_too_long_already_the_next_is_refused(
    client: httpx.Client, tenant: Tenant, guide: Collection
) -> None:
    """Whatever the pace was: a model that hangs ends no answers that would tell another one."""
    request = AnswerRequest("When?")

    def accept(priority: str) -> None:
        queries.accept(tenant_id=tenant.id, request=request, priority=priority)

    change(tenant, ask(client, "When?"), created_at=timezone.now() - timedelta(seconds=25))
    with override_settings(QUERY_MAX_WAIT_SECONDS=10.0):
        accept("urgent")  # that waits for nobody
        for priority in ("normal", "low"):
            with pytest.raises(Problem) as over:
                accept(priority)
            assert over.value.code == "overloaded" and over.value.retry_after in (15, 16, 17)
        change(tenant, listed(client, state="queued")[-1]["id"], not_before=timezone.now() + timedelta(seconds=60))
        accept("normal")  # the other one waits for something else


def test_old_queries_are_forgotten_and_their_answers_are_not(
    client: httpx.Client, tenant: Tenant, guide: Collection
) -> None:
    old, young, waiting = (ask(client, "When do backups run every night?") for _ in range(3))
    assert queries.work() and queries.work()
    change(tenant, old, finished_at=timezone.now() - timedelta(days=7.01))
    change(tenant, young, finished_at=timezone.now() - timedelta(days=6.99))
    change(tenant, waiting, created_at=timezone.now() - timedelta(days=100))
    current_app.loader.import_default_modules()
    current_app.tasks["generation.forget"]()
    assert [each["id"] for each in listed(client)] == [young, waiting]
    for path in ("", "/events"):
        refused(client.get(f"{QUERIES}/{old}{path}"), 404)
    assert client.get(f"/api/v1/answers/{old}").status_code == 200
    assert "generation.sweep" in {each["task"] for each in settings.CELERY_BEAT_SCHEDULE.values()}


def test_a_query_goes_with_its_answer(client: httpx.Client, tenant: Tenant, guide: Collection) -> None:
    query = ask(client, "When do backups run every night?")
    assert queries.work()
    with tenancy.scope(tenant.id):
        Answer.objects.filter(id=query).update(created_at=timezone.now() - timedelta(days=31))
    with override_settings(ANSWER_RETENTION_DAYS=30):
        current_app.loader.import_default_modules()
        current_app.tasks["generation.forget"]()
    refused(client.get(f"{QUERIES}/{query}"), 404)
