"""POST /api/v1/queries, answered by a real worker with a served model that misbehaves when the question says so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.redis import redis_client
from apps.documents import erasure
from apps.documents.models import Collection, Document
from apps.generation.models import Query
from tests.conftest import DATA, make_collection
from tests.support.fake_llm import FakeServer
from tests.support.processes import Process, Server, wait_for, worker
from tests.support.querying import ANSWER, QUERIES, ask, follow, state, told
from tests.support.refusals import refused


@pytest.fixture(scope="module")
def answering(llm: FakeServer) -> Iterator[Process]:
    patience = {"LLM_FIRST_TOKEN_SECONDS": "3", "LLM_NEXT_TOKEN_SECONDS": "20", "JOB_MAX_ATTEMPTS": "2"}
    beat = Process(DATA, "beat", "celery", "-A", "ragsite", "beat", "--pidfile=")
    queues = ("generate", "default")
    with beat, worker(DATA, *queues, name="answering", pool="threads", LLM_URL=llm.url, **patience) as running:
        wait_for(lambda: b"ready." in running.log.read_bytes(), what="the worker")
        yield running


@pytest.fixture(autouse=True)
def _forgiven() -> None:
    """What the model's server failed at in another test is forgotten."""
    for key in redis_client().scan_iter("breaker:*"):
        redis_client().delete(key)


def test_a_worker_answers_and_the_events_tell_it(client: httpx.Client, guide: Collection, answering: Process) -> None:
    query = ask(client, "When do backups run?", priority="urgent", max_tokens=77)
    events = follow(client, query)
    names = [name for _, name, _ in events]
    assert names[0] == "search_results" and names[-2:] == ["citation", "final_answer"]
    assert set(names[1:-2]) == {"message"}
    final = events[-1][2]
    assert told(events) == final["answer"] == ANSWER
    assert [data for _, name, data in events if name == "citation"] == final["citations"]
    found = state(client, query)
    assert (found["state"], found["answer"]) == ("done", final) and "error" not in found
    assert found["id"] == final["id"] == query, "the answer is on record under the id of the query"
    assert client.get(f"/api/v1/answers/{query}").json() == final
    places = [tuple(map(int, each.split("-"))) for each, _, _ in events]
    assert places == sorted(set(places))
    assert follow(client, query) == events


def test_a_reader_who_comes_back_gets_the_rest_and_nothing_twice(
    client: httpx.Client, guide: Collection, answering: Process, llm: FakeServer
) -> None:
    llm.go.clear()
    query = ask(client, "When do backups run? script:held")
    first = follow(client, query, until="02:30")
    assert state(client, query)["state"] == "running"
    again = follow(client, query, first[0][0], most=len(first) - 1)
    assert again == first[1:], "what was told already is told from where it was left"
    llm.go.set()
    rest = follow(client, query, first[-1][0])
    assert told(first + rest) == rest[-1][2]["answer"] == ANSWER
    whole = follow(client, query)
    assert first + rest == whole
    for index, (last, *_) in enumerate(whole[:-1]):
        assert follow(client, query, last) == whole[index + 1 :]
    assert client.get(f"{QUERIES}/{query}/events", headers={"Last-Event-ID": whole[-1][0]}).status_code == 204


def test_readers_hold_nothing_of_the_database(
    client: httpx.Client, guide: Collection, answering: Process, llm: FakeServer, api_key: str
) -> None:
    """More of them than one process has connections to it, or a client of Redis by default."""
    llm.go.clear()
    query = ask(client, "When do backups run? script:held")
    follow(client, query, until="02:30")
    headers, limits = {"Authorization": f"Bearer {api_key}"}, httpx.Limits(max_connections=None)
    with (
        Server(DATA, DATABASE_POOL_SIZE="2") as small,
        httpx.Client(base_url=small.url, headers=headers, limits=limits, timeout=30) as reader,
        ThreadPoolExecutor(120) as readers,
    ):
        following = [readers.submit(follow, reader, query) for _ in range(120)]
        wait_for(lambda: clients_waiting() >= 120, what="the readers")
        assert reader.get("/api/v1/collections").status_code == 200
        llm.go.set()
        assert {told(each.result()) for each in following} == {ANSWER}


def clients_waiting() -> int:
    return sum(each["cmd"].lower() == "xread" for each in redis_client().client_list())


def test_what_redis_has_lost_is_told_from_the_answer(
    client: httpx.Client, guide: Collection, answering: Process
) -> None:
    query = ask(client, "When do backups run?")
    whole = follow(client, query)
    redis_client().flushall()
    final = whole[-1][2]
    for index, (last, *_) in enumerate(whole[:-1]):
        rest = follow(client, query, last)
        assert rest[-1] == whole[-1] and "restart" not in {name for _, name, _ in rest}
        assert told(whole[: index + 1] + rest) == ANSWER
        names = [name for _, name, _ in whole[: index + 1] + rest]
        assert [name for name in names if name != "message"] == ["search_results", "citation", "final_answer"]
    assert client.get(f"{QUERIES}/{query}/events", headers={"Last-Event-ID": whole[-1][0]}).status_code == 204
    late = follow(client, query)
    assert [name for _, name, _ in late] == ["message", "citation", "final_answer"]
    assert told(late) == final["answer"] and late[-1] == whole[-1]
    for elsewhere in ("9-9", "1-999"):  # another query's, which has got further
        strange = follow(client, query, elsewhere)
        assert [name for _, name, _ in strange] == ["restart", "message", "citation", "final_answer"]
    refused(client.get(f"{QUERIES}/{query}/events", headers={"Last-Event-ID": "nine"}), 400)


def test_an_answer_that_was_given_again_says_so_ever_after(
    client: httpx.Client, guide: Collection, answering: Process, llm: FakeServer
) -> None:
    question = "When do backups run every night?"
    first = follow(client, ask(client, question))[-1][2]
    again, standing_in = ask(client, question), ""
    told_again = follow(client, again)[-1][2]
    llm.fails = "500"
    try:
        standing_in = ask(client, question, temperature=0.3)
        instead = follow(client, standing_in)[-1][2]
    finally:
        llm.fails = ""
    assert (told_again["id"], instead["id"]) == (first["id"], first["id"])
    redis_client().flushall()
    for query, told_then, degraded in ((again, told_again, None), (standing_in, instead, "cached")):
        for body in (told_then, state(client, query)["answer"], follow(client, query)[-1][2]):
            assert (body["cached"], body["degraded"]) == (True, degraded)


def test_redis_is_flushed_while_the_model_writes(
    client: httpx.Client, guide: Collection, answering: Process, llm: FakeServer
) -> None:
    llm.go.clear()
    query = ask(client, "When do backups run? script:held")
    first = follow(client, query, until="02:30")
    with ThreadPoolExecutor(1) as reader:
        rest = reader.submit(follow, client, query, first[-1][0])
        wait_for(clients_waiting, what="the reader")
        redis_client().flushall()
        llm.go.set()
        assert told(first + rest.result()) == ANSWER
    assert follow(client, query)[0][1] == "search_results", "the worker has told all of it again"


def test_cancelling_stops_the_model_and_frees_its_place(
    client: httpx.Client, guide: Collection, answering: Process, llm: FakeServer
) -> None:
    query = ask(client, "When do backups run? script:slow")
    first = follow(client, query, until="and on")
    before = llm.dropped
    with ThreadPoolExecutor(1) as reader:
        rest = reader.submit(follow, client, query, first[-1][0])
        cancelled = client.post(f"{QUERIES}/{query}/cancel")
        began = time.monotonic()
        wait_for(lambda: llm.dropped == before + 1, seconds=5, every=0.02, what="the model's stream to be closed")
        assert time.monotonic() - began < 1.5
        last, name, data = rest.result()[-1]
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert (name, data["code"], data["request_id"]) == ("error", "cancelled", query)
    found = state(client, query)
    assert (found["state"], found["error"]["code"]) == ("cancelled", "cancelled") and "answer" not in found
    assert client.get(f"{QUERIES}/{query}/events", headers={"Last-Event-ID": last}).status_code == 204
    for verb in ("cancel", "retry"):
        assert refused(client.post(f"{QUERIES}/{query}/{verb}"), 409)["code"] == "wrong_state"
    refused(client.get(f"/api/v1/answers/{query}"), 404)


def test_what_would_fail_again_fails_at_once_and_may_be_tried_again(
    client: httpx.Client, guide: Collection, answering: Process, tenant: Tenant
) -> None:
    query = ask(client, "When do backups run?", collections=["later"])
    [(_, name, data)] = follow(client, query)
    assert (name, data["code"], data["status"]) == ("error", "unknown_collection", 404)
    found = state(client, query)
    assert (found["state"], found["attempts"], found["error"]["code"]) == ("failed", 1, "unknown_collection")
    make_collection(tenant, slug="later")
    again = client.post(f"{QUERIES}/{query}/retry").json()
    assert (again["state"], again["attempts"]) == ("queued", 0)
    events = follow(client, query)
    assert events[-1][1] == "final_answer" and events[-1][2]["abstained"]
    assert state(client, query)["state"] == "done"
    unknown = ask(client, "When do backups run?", model="nobody")
    assert follow(client, unknown)[-1][2]["code"] == "unknown_model"


@pytest.mark.parametrize(
    ("fields", "status", "pointer"),
    [
        ({"filters": {"a": 1}}, 400, "/filters/a"),
        ({"filters": {"version": 1}}, 400, "/filters/version"),
        ({"as_of": "9999-12-31T23:59:59Z"}, 422, "/as_of"),
        ({"as_of": "2026-01-01T00:00:00Z", "consistency": "strong"}, 400, "/consistency"),
        ({"conversation": str(uuid4())}, 400, "/conversation"),
    ],
)
def test_what_can_be_seen_at_once_to_have_no_answer_is_refused(
    client: httpx.Client, guide: Collection, fields: dict[str, Any], status: int, pointer: str
) -> None:
    refusal = client.post(QUERIES, json={"question": "When?"} | fields)
    assert refused(refusal, status)["errors"][0]["pointer"] == pointer
    assert refusal.json()["code"] == client.post("/api/v1/answers", json={"question": "When?"} | fields).json()["code"]
    assert client.get(QUERIES).json()["results"] == []


def test_what_may_pass_is_tried_again_and_then_dead(
    client: httpx.Client, guide: Collection, answering: Process, llm: FakeServer
) -> None:
    query = ask(client, "When do backups run? script:cut")
    events = follow(client, query)
    names = [name for _, name, _ in events]
    assert names.count("search_results") == 2 and names.count("restart") == 1 and names[-1] == "error"
    assert events[-1][2]["code"] == "llm_failed" and events[-1][2]["status"] == 502
    found = state(client, query)
    assert (found["state"], found["attempts"], found["error"]["code"]) == ("dead", 2, "llm_failed")
    [listed] = client.get(QUERIES, params={"state": "dead"}).json()["results"]
    assert listed == found
    assert client.get(QUERIES, params={"state": "done"}).json()["results"] == []
    llm.fails = "normal"
    try:
        assert client.post(f"{QUERIES}/{query}/retry").status_code == 200
        rest = follow(client, query, events[-1][0])
    finally:
        llm.fails = ""
    assert rest[0][1] == "restart" and told(events + rest) == ANSWER
    assert [name for _, name, _ in rest].count("restart") == 1


def test_a_strangers_query_does_not_exist(
    client: httpx.Client,
    guide: Collection,
    answering: Process,
    web: Server,
    other_tenant: Tenant,
    make_key: Callable[..., str],
) -> None:
    query = ask(client, "When do backups run?")
    follow(client, query)
    with web.client(make_key(other_tenant)) as stranger:
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")):
            refused(stranger.request(method, f"{QUERIES}/{query}{path}"), 404)
        assert stranger.get(QUERIES).json()["results"] == []
    with web.client(make_key(other_tenant, "write")) as writer:
        assert refused(writer.post(QUERIES, json={"question": "Why?"}), 403)["code"] == "missing_scope"


def test_an_erasure_reaches_queries_and_their_events(
    client: httpx.Client, guide: Collection, answering: Process, tenant: Tenant
) -> None:
    query = ask(client, "When do backups run?")
    whole = follow(client, query)
    with tenancy.scope(tenant.id):
        [document] = Document.objects.all()
        row = Query.objects.values().get(id=query)
        assert erasure.traces(document.id)["generation_query"] == 1
    assert "02:30" not in json.dumps(row, default=str), "the row quotes nothing"
    assert client.delete(f"/api/v1/documents/{document.id}").status_code == 204
    assert follow(client, query)[0][2]["results"] == [], "what is deleted is not found any more"
    assert client.delete(f"/api/v1/documents/{document.id}?erase=true").status_code == 204
    for path in ("", "/events"):
        refused(client.get(f"{QUERIES}/{query}{path}", headers={"Last-Event-ID": whole[0][0]}), 404)
    assert redis_client().keys(f"*{query}*") == []
    with tenancy.scope(tenant.id):
        assert set(erasure.traces(document.id).values()) == {0}


def test_an_erasure_reaches_the_events_of_queries_without_an_answer(
    client: httpx.Client, guide: Collection, answering: Process, tenant: Tenant
) -> None:
    """They quote the passages that were found; nothing on record tells of which documents."""
    query = ask(client, "When do backups run? script:cut")
    wait_for(lambda: state(client, query)["state"] == "dead", what="the end")
    [stream] = redis_client().keys(f"*{query}*")
    assert "02:30" in str(redis_client().xrange(stream))
    with tenancy.scope(tenant.id):
        [document] = Document.objects.all()
    assert client.delete(f"/api/v1/documents/{document.id}?erase=true").status_code == 204
    assert not redis_client().exists(stream)
    assert [name for _, name, _ in follow(client, query, "2-1")] == ["error"]


def test_its_id_is_in_every_line_and_goes_to_the_model(
    client: httpx.Client, guide: Collection, answering: Process, llm: FakeServer, web: Server
) -> None:
    query = ask(client, "When do backups run?")
    follow(client, query)
    succeeded = f"Task generation.answer[{query}] succeeded"
    wait_for(lambda: succeeded in answering.log.read_text(), what="the worker's log")
    log = answering.log.read_text()
    assert f"[{query}] answering, attempt 1" in log and f"Task generation.answer[{query}] received" in log
    assert f"query {query} is accepted" in web.running.log.read_text()
    assert llm.headers[-1]["x-request-id"] == query
