"""`/api/v1/evaluations`: labelled sets, and runs that measure searches - also when a worker dies in the middle."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from celery import current_app
from django.db import connection
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents.erasure import traces
from apps.documents.models import Collection
from apps.evaluation import runs
from apps.evaluation.models import EvaluationRun, LabelledQuery, QueryResult
from tests.conftest import DATA
from tests.support.processes import Server, wait_for, worker
from tests.support.refusals import refused, send

SETS, RUNS = "/api/v1/evaluations/sets", "/api/v1/evaluations/runs"
DOCUMENTS = "/api/v1/documents"
Ingest = Callable[..., Any]


@pytest.fixture
def farm(collection: Collection, ingest: Ingest) -> Collection:
    for name in ("bees", "wasps", "hens"):
        ingest(collection, f"All that is known of {name}: the {name} of the farm.", source_uri=name)
    return collection


def labelled(query: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"query": query, "relevant": [{"source_uri": name} for name in names], **more}


def body(*queries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "Farm", "collection": "docs", "queries": list(queries)} | more


def made(client: httpx.Client, *queries: dict[str, Any], **more: Any) -> dict[str, Any]:
    answered = client.post(SETS, json=body(*queries, **more))
    assert answered.status_code == 201, answered.text
    return answered.json()


def run_of(tenant: Tenant, set_id: str, modes: tuple[str, ...] = ("lexical",), k: int = 10) -> EvaluationRun:
    """A run that nobody has begun."""
    with tenancy.scope(tenant.id):
        return EvaluationRun.objects.create(tenant_id=tenant.id, set_id=set_id, modes=list(modes), k=k)


def test_a_small_set_is_measured_at_once(client: httpx.Client, farm: Collection) -> None:
    found = made(client, labelled("bees", "bees", answer="KNOWN  of bees"), labelled("hens", "hens", "unknown"))
    assert found["queries"] == 2 and found["last_run"] is None and found["labelled"][0]["answer"] == "KNOWN  of bees"
    answered = client.post(RUNS, json={"set": found["id"], "modes": ["lexical", "hybrid"], "k": 5})
    assert answered.status_code == 201, answered.text
    run = answered.json()
    assert (run["state"], run["error"], run["searches"], run["collection"]) == ("done", None, 4, "docs")
    assert run["metrics"]["lexical"] == pytest.approx(
        {"P@5": 0.2, "recall@5": 0.75, "MRR@5": 1.0, "nDCG@5": (1 + 1 / (1 + 0.63092975)) / 2, "answer@5": 1.0},
        abs=1e-6,
    )
    assert [each["query"] for each in run["results"]] == ["bees", "hens"]
    of_hens = run["results"][1]["modes"]["lexical"]
    assert of_hens["ranks"] == [1] and of_hens["metrics"]["recall@5"] == 0.5 and "answer@5" not in of_hens["metrics"]
    assert client.get(f"{RUNS}/{run['id']}").json() == run
    assert client.get(f"{SETS}/{found['id']}").json()["last_run"]["metrics"] == run["metrics"]
    listed = client.get(RUNS, params={"set": found["id"]}).json()["results"]
    assert [each["id"] for each in listed] == [run["id"]] and "results" not in listed[0]
    assert [each["name"] for each in client.get(SETS).json()["results"]] == ["Farm"]


def test_documents_may_be_named_by_their_ids_and_graded(client: httpx.Client, farm: Collection) -> None:
    ids = {each["source_uri"]: each["id"] for each in client.get(DOCUMENTS).json()["results"]}
    labels = [{"document_id": ids["bees"], "grade": 2}, {"document_id": ids["hens"], "grade": 0}]
    found = made(client, {"query": "bees", "relevant": labels})
    assert found["labelled"][0]["relevant"][0] == {"document_id": ids["bees"], "source_uri": None, "grade": 2}
    run = client.post(RUNS, json={"set": found["id"], "modes": ["lexical"]}).json()
    assert run["metrics"]["lexical"]["nDCG@10"] == 1 and run["metrics"]["lexical"]["P@10"] == 0.1


def test_a_run_goes_on_where_a_killed_worker_stopped(client: httpx.Client, tenant: Tenant, farm: Collection) -> None:
    found = made(client, *(labelled(f"bees {number}", "bees") for number in range(4)))
    run = run_of(tenant, found["id"])
    with tenancy.scope(tenant.id):  # as it is left by a worker that died
        query = LabelledQuery.objects.get(number=1)
        QueryResult.objects.create(
            run=run, query=query, tenant_id=tenant.id, mode="lexical", metrics={"P@5": 0.125}, ranks=[7], milliseconds=1
        )
        EvaluationRun.objects.filter(id=run.id).update(
            state="running", attempts=1, fence=1, lease_until=timezone.now() + timedelta(minutes=1)
        )
    assert not runs.work(tenant_id=tenant.id, run_id=run.id), "its lease holds"
    with tenancy.scope(tenant.id):
        EvaluationRun.objects.filter(id=run.id).update(lease_until=timezone.now() - timedelta(seconds=1))
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM evaluation_due()")
        assert (run.id,) in cursor.fetchall()
    assert runs.work(tenant_id=tenant.id, run_id=run.id)
    shown = client.get(f"{RUNS}/{run.id}").json()
    assert shown["state"] == "done" and len(shown["results"]) == 4
    assert shown["results"][0]["modes"]["lexical"]["ranks"] == [7], "what was done is not done again"
    assert shown["metrics"]["lexical"]["P@5"] == pytest.approx((0.125 + 3 * 0.2) / 4)


def test_a_run_whose_workers_keep_dying_is_failed(client: httpx.Client, tenant: Tenant, farm: Collection) -> None:
    run = run_of(tenant, made(client, labelled("bees", "bees"))["id"])
    with tenancy.scope(tenant.id):
        EvaluationRun.objects.filter(id=run.id).update(state="running", attempts=5, lease_until=timezone.now())
    runs.work(tenant_id=tenant.id, run_id=run.id)
    shown = client.get(f"{RUNS}/{run.id}").json()
    assert shown["state"] == "failed" and shown["error"]["code"] == "worker_lost"


def test_who_has_lost_a_run_writes_no_more(client: httpx.Client, tenant: Tenant, farm: Collection) -> None:
    run = run_of(tenant, made(client, labelled("bees", "bees"))["id"])
    mine = runs._claim(tenant.id, run.id)
    assert mine is not None
    with tenancy.scope(tenant.id):
        EvaluationRun.objects.filter(id=run.id).update(fence=mine.fence + 1)  # another has taken it
    with pytest.raises(runs.LostLease):
        runs._ask(mine)
    assert client.get(f"{RUNS}/{run.id}").json()["results"] == []
    assert client.delete(f"{SETS}/{run.set_id}").status_code == 204


def test_two_runs_at_once_leave_room_for_other_work(client: httpx.Client, tenant: Tenant, farm: Collection) -> None:
    found = made(client, labelled("bees", "bees"))
    first, second, third = (run_of(tenant, found["id"]) for _ in range(3))

    def due() -> set[Any]:
        return {run_id for _, run_id in runs._due()}

    assert due() and due() <= {first.id, second.id, third.id}
    assert runs._claim(tenant.id, first.id) and runs._claim(tenant.id, second.id) and due() == set()
    with tenancy.scope(tenant.id):
        EvaluationRun.objects.exclude(id=third.id).delete()
    assert due() == {third.id}
    runs.drain()
    assert due() == set() and client.get(f"{RUNS}/{third.id}").json()["state"] == "done"


def test_of_old_runs_only_the_means_are_kept(
    client: httpx.Client, tenant: Tenant, farm: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RUNS_WITH_RESULTS", 2)
    found = made(client, labelled("bees", "bees"))
    ids = [run_of(tenant, found["id"]).id for _ in range(3)]
    for run_id in ids:
        runs.work(tenant_id=tenant.id, run_id=run_id)
    shown = [client.get(f"{RUNS}/{run_id}").json() for run_id in ids]
    assert [len(each["results"]) for each in shown] == [0, 1, 1]
    assert all(each["metrics"]["lexical"]["MRR@10"] == 1 for each in shown)


def test_a_collection_that_is_gone_fails_the_run(client: httpx.Client, farm: Collection) -> None:
    found = made(client, labelled("bees", "bees"))
    assert client.delete("/api/v1/collections/docs").status_code == 204
    run = client.post(RUNS, json={"set": found["id"]}).json()
    assert run["state"] == "failed" and run["error"]["code"] == "unknown_collection"


def test_an_erased_document_takes_the_questions_about_it_along(client: httpx.Client, farm: Collection) -> None:
    ids = {each["source_uri"]: each["id"] for each in client.get(DOCUMENTS).json()["results"]}
    by_id = {"query": "stings", "relevant": [{"document_id": ids["bees"]}]}
    found = made(client, labelled("the secret of bees", "bees"), by_id, labelled("hens", "hens"))
    run = client.post(RUNS, json={"set": found["id"], "modes": ["lexical"]}).json()
    assert len(run["results"]) == 3
    assert client.delete(f"{DOCUMENTS}/{ids['bees']}?erase=true").status_code == 204
    assert [each["query"] for each in client.get(f"{SETS}/{found['id']}").json()["labelled"]] == ["hens"]
    assert [each["query"] for each in client.get(f"{RUNS}/{run['id']}").json()["results"]] == ["hens"]


def test_traces_of_an_erased_document_are_counted(client: httpx.Client, tenant: Tenant, farm: Collection) -> None:
    ids = {each["source_uri"]: each["id"] for each in client.get(DOCUMENTS).json()["results"]}
    client.delete(f"{DOCUMENTS}/{ids['bees']}?erase=true")
    made(client, labelled("named after its erasure", "bees"))
    with tenancy.scope(tenant.id):
        assert traces(ids["bees"])["evaluation_labelledquery"] == 1
        assert traces(ids["hens"])["evaluation_labelledquery"] == 0


def test_a_set_is_deleted_with_its_runs(client: httpx.Client, farm: Collection) -> None:
    found = made(client, labelled("bees", "bees"))
    run = client.post(RUNS, json={"set": found["id"]}).json()
    assert client.delete(f"{SETS}/{found['id']}").status_code == 204
    refused(client.get(f"{SETS}/{found['id']}"), 404)
    refused(client.get(f"{RUNS}/{run['id']}"), 404)
    refused(client.delete(f"{SETS}/{found['id']}"), 404)


def test_sets_and_runs_are_behind_the_wall(
    client: httpx.Client, web: Server, other_tenant: Tenant, make_key: Callable[..., str], farm: Collection
) -> None:
    found = made(client, labelled("bees", "bees"))
    run = client.post(RUNS, json={"set": found["id"]}).json()
    with web.client(make_key(other_tenant)) as theirs:
        assert theirs.get(SETS).json()["results"] == [] == theirs.get(RUNS).json()["results"]
        refused(theirs.get(f"{SETS}/{found['id']}"), 404)
        refused(theirs.get(f"{RUNS}/{run['id']}"), 404)
        refused(theirs.post(RUNS, json={"set": found["id"]}), 404)
        refused(theirs.delete(f"{SETS}/{found['id']}"), 404)
    assert client.get(f"{SETS}/{found['id']}").status_code == 200


def test_reading_needs_read_and_measuring_needs_write(
    web: Server, tenant: Tenant, make_key: Callable[..., str], farm: Collection
) -> None:
    with web.client(make_key(tenant, "read")) as reader, web.client(make_key(tenant, "write")) as writer:
        assert reader.get(SETS).status_code == 200
        refused(reader.post(SETS, json=body(labelled("bees", "bees"))), 403, "missing_scope")
        found = writer.post(SETS, json=body(labelled("bees", "bees"))).json()
        refused(reader.post(RUNS, json={"set": found["id"]}), 403, "missing_scope")
        assert writer.post(RUNS, json={"set": found["id"]}).status_code == 201


ONE = {"query": "a", "relevant": [{"source_uri": "x"}]}


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"queries": []}, "/queries"),
        ({"queries": [ONE | {"query": 5}]}, "/queries/0/query"),
        ({"queries": [ONE | {"filters": {}}]}, "/queries/0/filters"),
        ({"queries": [ONE | {"relevant": []}]}, "/queries/0/relevant"),
        ({"queries": [ONE | {"relevant": [{"grade": 1}]}]}, "/queries/0/relevant/0"),
        (
            {"queries": [ONE | {"relevant": [{"source_uri": "x", "document_id": str(uuid4())}]}]},
            "/queries/0/relevant/0",
        ),
        ({"queries": [ONE | {"relevant": [{"source_uri": "x", "grade": -1}]}]}, "/queries/0/relevant/0/grade"),
        ({"queries": [ONE | {"relevant": [{"source_uri": "x", "grade": 0}]}]}, "/queries/0/relevant"),
        ({"queries": [ONE | {"relevant": [{"source_uri": "x"}] * 2}]}, "/queries/0/relevant"),
        ({"queries": [ONE, ONE | {"relevant": [{"document_id": 5}]}]}, "/queries/1/relevant/0/document_id"),
        ({"colour": 1}, "/colour"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_a_bad_field_of_a_set_is_named(
    client: httpx.Client, collection: Collection, changed: dict, pointer: str
) -> None:
    refused(send(client, json.dumps(body(ONE) | changed), SETS), 400, pointer=pointer)


def test_a_set_is_of_a_collection_and_its_name_is_its_own(client: httpx.Client, collection: Collection) -> None:
    refused(client.post(SETS, json=body(ONE, collection="nowhere")), 422, "unknown_collection", pointer="/collection")
    made(client, ONE)
    refused(client.post(SETS, json=body(ONE)), 409, "name_taken")


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"set": "x"}, "/set"),
        ({"modes": []}, "/modes"),
        ({"modes": ["fuzzy"]}, "/modes/0"),
        ({"k": 0}, "/k"),
        ({"k": 101}, "/k"),
    ],
)
def test_a_bad_field_of_a_run_is_named(client: httpx.Client, tenant: Tenant, changed: dict, pointer: str) -> None:
    refused(send(client, json.dumps({"set": str(uuid4())} | changed), RUNS), 400, pointer=pointer)


def test_what_is_not_there_is_not_found(client: httpx.Client, tenant: Tenant) -> None:
    refused(client.post(RUNS, json={"set": str(uuid4())}), 404)
    refused(client.get(f"{RUNS}/{uuid4()}"), 404)
    refused(client.get(RUNS, params={"set": "x"}), 400, pointer="/set")


def test_a_large_run_is_done_by_workers_though_one_is_killed(
    client: httpx.Client, tenant: Tenant, farm: Collection
) -> None:
    """kill -9 in the middle; what had been done stays, another worker does the rest."""
    found = made(client, *(labelled(f"bees {number}", "bees") for number in range(200)))

    def done() -> set[int]:
        with tenancy.scope(tenant.id):
            return set(QueryResult.objects.values_list("id", flat=True))

    with worker(DATA, "default", name="victim", JOB_LEASE_SECONDS="2") as victim:
        answered = client.post(RUNS, json={"set": found["id"]})
        assert answered.status_code == 202 and answered.json()["state"] == "queued"
        path = f"{RUNS}/{answered.json()['id']}"
        wait_for(done, what="the first results")
        victim.kill()
    kept = done()
    assert 0 < len(kept) < 600 and client.get(path).json()["state"] == "running"

    def ended() -> bool:
        current_app.send_task("evaluation.drain")  # what beat does every few seconds
        return client.get(path).json()["state"] == "done"

    with worker(DATA, "default", name="successor", JOB_LEASE_SECONDS="2"):
        wait_for(ended, every=0.5, what="the run")
    run = client.get(path).json()
    assert len(run["results"]) == 200 and all(len(each["modes"]) == 3 for each in run["results"])
    assert kept < done() and len(done()) == 600
    assert run["metrics"]["lexical"]["recall@10"] == 1 and set(run["metrics"]) == {"dense", "lexical", "hybrid"}
    with tenancy.scope(tenant.id):
        assert EvaluationRun.objects.get().attempts == 2
