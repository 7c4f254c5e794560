"""A worker of a Citus cluster that is killed, hangs and comes back: what is answered, refused, kept and done later. Run
by test_citus.py, on a cluster whose nodes are on this machine; not by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from django.db import OperationalError, connection, connections
from django.test import override_settings

from apps.access import nodes, tenancy
from apps.access.problems import Problem, as_problem
from apps.documents import lexicon, tasks
from apps.documents.accept import Accepted
from apps.documents.engines import engine_for
from apps.documents.models import Collection, Document, IngestionJob
from apps.retrieval import lexical
from apps.retrieval.filters import compile_filter
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery, SearchResult
from tests.conftest import DATA
from tests.support.node import Node
from tests.support.processes import wait_for, worker

Put = Callable[..., Accepted]
DOCUMENTS = 24
MODES = ("dense", "lexical", "hybrid")


@pytest.fixture
def worker_node(database: None) -> Iterator[Node]:
    """One of the cluster's nodes, running again after the test."""
    assert engine_for(connection).name == "citus", "DATABASE_URL is no Citus cluster"
    with tenancy.scope(tenancy.tenant_id_for("nobody")):
        held = nodes.holders()
    node = Node(held[-1].host, held[-1].port)
    if len(held) < 2 or node.pid is None:
        pytest.skip("the cluster's workers are not on this machine")
    try:
        yield node
    finally:
        node.go_on()
        node.start()
        wait_for(_whole, what="the cluster to answer")
        nodes._away.clear()


def _whole() -> bool:
    with suppress(OperationalError), connections["owner"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM documents_document")
        return True
    return False


@pytest.fixture
def harbour(collection: Collection, ingest: Put) -> list[Accepted]:
    """No two of these are as near to a question as each other: of equals another one may be shown each time."""

    def said(number: int, word: str) -> str:
        return " ".join([str(number), *(f"{word}{other}" for other in range(number))])

    return [
        ingest(
            collection,
            f"# Berth {number}\n\nThe harbour opens at {said(number, 'bell')}.\n\n"
            f"# Rest\n\nNothing is said of ship {said(number, 'again')}.",
            source_uri=f"n{number}",
            metadata={"even": number % 2 == 0},
            media_type="text/markdown",
        )
        for number in range(DOCUMENTS)
    ]


def found(collection: Collection, **values: Any) -> SearchResult:
    query = SearchQuery(**{"query": "harbour berth", "k": 50, "partial": True} | values)
    return search(tenant_id=collection.tenant_id, query=query, reuse=False)


def uris(result: SearchResult) -> set[str]:
    return {hit.source_uri for hit in result.hits}


def placed(collection: Collection, node: Node) -> set[str]:
    """The source URIs of the documents that the node has."""
    with tenancy.scope(collection.tenant_id):
        there = list(Document.objects.filter(collection=collection).values_list("id", "source_uri"))
    with connections["owner"].cursor() as cursor:
        of_node = "SELECT nodeport = %s FROM pg_dist_shard_placement WHERE shardid ="
        of_document = "get_shard_id_for_distribution_column('documents_document', %s::uuid)"
        held = set()
        for document_id, uri in there:
            cursor.execute(f"{of_node} {of_document}", [node.port, document_id])
            if cursor.fetchone()[0]:
                held.add(uri)
    return held


def counted(client: Any) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("rag_partial_searches_total "))


@pytest.mark.parametrize("indexed", [False, True], ids=["exactly", "through the index"])
@pytest.mark.parametrize(
    ("mode", "counted"),
    [("dense", True), ("lexical", True), ("hybrid", True), ("lexical", False), ("hybrid", False)],
)
def test_what_is_asked_of_each_node_is_what_is_asked_of_all(
    collection: Collection,
    harbour: list[Accepted],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    counted: bool,
    indexed: bool,
) -> None:
    """Nothing is away, and each node is asked nevertheless. Where the collection's words are not counted, each node
    weighs them by what it has (docs/search.md): then only what is found can be compared, not which of it is best."""
    if counted:
        monkeypatch.setattr(lexical, "PLANNED_CHUNKS", 0)
        assert lexicon.count(tenant_id=collection.tenant_id, collection_id=collection.id)
    with tenancy.scope(collection.tenant_id):
        holders = nodes.holders()
    nobody = nodes.Node("127.0.0.1", 1, 8)
    with override_settings(EXACT_SCAN_ROWS=0 if indexed else 5_000):
        every = {hit.chunk_id for hit in found(collection, mode=mode).hits}
        for values in (
            {},
            {"k": 5},
            {"filter": compile_filter({"metadata.even": True})},
            {"diversify": 0.5, "k": 5},
            {"expand": 1},
        ):
            whole = found(collection, mode=mode, **values)
            assert whole.partial is None
            with monkeypatch.context() as another:
                another.setattr(nodes, "any_away", lambda: True)
                another.setattr(nodes, "holders", lambda: [*holders, nobody])
                parts = found(collection, mode=mode, **values)
            nodes._away.clear()
            assert parts.partial == {"shards": sum(each.shards for each in holders) + 8, "unavailable": 8}
            assert len(parts.hits) == len(whole.hits)
            if mode == "dense" and not values:
                assert len({hit.score for hit in whole.hits[:DOCUMENTS]}) == DOCUMENTS, "of equals another may be shown"
            if counted:
                assert parts.hits == whole.hits
            elif "k" not in values:
                assert {hit.chunk_id for hit in parts.hits} == {hit.chunk_id for hit in whole.hits}
            else:
                assert {hit.chunk_id for hit in parts.hits} <= every


@pytest.mark.parametrize("mode", MODES)
def test_a_killed_node_is_told_of_and_the_rest_answers(
    collection: Collection, harbour: list[Accepted], worker_node: Node, mode: str
) -> None:
    missing = placed(collection, worker_node)
    every = {f"n{number}" for number in range(DOCUMENTS)}
    assert missing and missing != every and uris(found(collection, mode=mode)) == every
    worker_node.kill()
    with pytest.raises(OperationalError) as refused:
        found(collection, mode=mode, partial=False)
    assert tenancy.lost_a_node(refused.value)
    problem = as_problem(refused.value)
    assert (problem.status_code, problem.code) == (503, "shards_unavailable") and problem.retry_after
    answered = found(collection, mode=mode)
    assert uris(answered) == every - missing and len(answered.hits) == (1 if mode == "lexical" else 2) * len(
        every - missing
    )
    assert answered.partial and 0 < answered.partial["unavailable"] < answered.partial["shards"]
    for values, some in (
        ({"expand": 1, "k": 1}, every),
        ({"diversify": 0.5, "k": 4}, every),
        ({"filter": compile_filter({"metadata.even": True})}, {f"n{number}" for number in range(0, DOCUMENTS, 2)}),
    ):
        few = found(collection, mode=mode, **values)
        assert few.partial == answered.partial and few.hits and uris(few) <= some - missing
        if "expand" in values:
            assert "opens" in few.hits[0].text and "ship" in few.hits[0].text
    worker_node.start()
    wait_for(lambda: found(collection, mode=mode).partial is None, what="the node to be asked again")
    assert uris(found(collection, mode=mode)) == every


def test_a_version_of_a_document_is_there_or_cannot_be_reached(
    collection: Collection, harbour: list[Accepted], worker_node: Node
) -> None:
    missing = placed(collection, worker_node)
    ids = {accepted.document.source_uri: accepted.document.id for accepted in harbour}
    here = next(uri for uri in ids if uri not in missing)
    worker_node.kill()
    assert uris(found(collection, pinned=(ids[here], 1))) == {here}
    with pytest.raises(Problem, match="cannot be reached") as refused:
        found(collection, pinned=(ids[next(iter(missing))], 1))
    assert refused.value.code == "shards_unavailable"


def test_a_node_that_hangs_holds_one_search_up_and_not_the_next(
    collection: Collection, harbour: list[Accepted], worker_node: Node
) -> None:
    missing = placed(collection, worker_node)
    worker_node.hang()
    with override_settings(SEARCH_TIMEOUT_SECONDS=6.0):
        answered = found(collection)
        assert answered.partial and not uris(answered) & missing and uris(answered)
        began = time.monotonic()
        assert found(collection).partial
        assert time.monotonic() - began < 6.0, "it waited for the node again"
        for alias in nodes._away:
            nodes._away[alias] = 0.0  # the time has come to ask it again
        began = time.monotonic()
        assert found(collection).partial
        assert time.monotonic() - began < 6.0, "it waited for the cluster, where asking the node would do"
        worker_node.go_on()
        wait_for(lambda: found(collection).partial is None, what="the node to be asked again")


def test_writes_while_a_node_hangs_end_and_leave_the_searches_their_connections(
    client: Any, collection: Collection, harbour: list[Accepted], worker_node: Node
) -> None:
    missing = placed(collection, worker_node)
    statuses: dict[int, int] = {}
    slowest: dict[str, float] = {}
    over = threading.Event()

    def timed(what: str, ask: Callable[[], Any]) -> Any:
        began = time.monotonic()
        response = ask()
        slowest[what] = max(slowest.get(what, 0), time.monotonic() - began)
        return response

    def write(number: int) -> None:
        body = {"collection": collection.slug, "source_uri": f"h{number}", "text": f"Write number {number}."}
        while not over.is_set():
            response = timed("write", lambda: client.post("/api/v1/documents", json=body))
            statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
            assert response.status_code < 300 or response.json()["code"] in (
                "shards_unavailable",
                "database_unavailable",
            )

    worker_node.hang()
    body = {"query": "harbour berth", "collections": [collection.slug], "k": 50, "partial": True}
    with ThreadPoolExecutor(20) as writers:
        writes = [writers.submit(write, number) for number in range(20)]
        try:
            time.sleep(12)  # the first have found out that the node hangs
            slowest.clear()
            statuses.clear()
            until = time.monotonic() + 10
            while time.monotonic() < until:
                response = timed("search", lambda: client.post("/api/v1/search", json=body))
                assert response.status_code == 200, response.text
                assert response.json()["partial"] and response.json()["results"]
                assert not {hit["source_uri"] for hit in response.json()["results"]} & missing
                timed("read", lambda: client.get("/api/v1/collections"))
        finally:
            over.set()
            worker_node.go_on()
    for done in writes:
        done.result()
    assert statuses.get(503, 0) > 40, statuses
    assert max(slowest.values()) < 8, slowest
    wait_for(lambda: client.post("/api/v1/search", json=body).json()["partial"] is None, what="the node to be asked")
    again = {"collection": collection.slug, "source_uri": "h0", "text": "Write number 0."}
    wait_for(lambda: client.post("/api/v1/documents", json=again).status_code < 300, what="a write to be accepted")


def test_an_answer_from_the_rest_says_so_and_is_stored(
    client: Any, collection: Collection, harbour: list[Accepted], worker_node: Node
) -> None:
    missing = placed(collection, worker_node)
    body = {"question": "When does the harbour open?", "collections": [collection.slug], "k": 50}
    assert client.post("/api/v1/answers", json=body | {"partial": True}).json()["partial"] is None
    refused = client.post("/api/v1/answers", json=body | {"partial": True, "consistency": "strong"})
    assert refused.status_code == 400 and refused.json()["errors"][0]["pointer"] == "/partial"
    worker_node.kill()
    response = client.post("/api/v1/answers", json=body)
    assert response.status_code == 503 and response.json()["code"] == "shards_unavailable"
    answer = client.post("/api/v1/answers", json=body | {"partial": True}).json()
    assert answer["partial"]["unavailable"] and answer["citations"]
    assert not {citation["source_uri"] for citation in answer["citations"]} & missing
    assert client.get(f"/api/v1/answers/{answer['id']}").json() == answer
    assert client.get(f"/api/v1/answers/{answer['id']}/verify").json()["verified"]
    chat = {"messages": [{"role": "user", "content": body["question"]}], "collections": [collection.slug]}
    message = client.post("/v1/chat/completions", json=chat | {"partial": True}).json()["choices"][0]["message"]
    assert message["partial"] == answer["partial"] and message["citations"]


def test_over_http_it_is_told_and_refused(
    client: Any, collection: Collection, harbour: list[Accepted], worker_node: Node
) -> None:
    missing = placed(collection, worker_node)
    body = {"query": "harbour berth", "collections": [collection.slug], "k": 50}
    assert client.post("/api/v1/search", json=body | {"partial": True}).json()["partial"] is None
    refused = client.post("/api/v1/search", json=body | {"partial": True, "consistency": "strong"})
    assert refused.status_code == 400 and refused.json()["errors"][0]["pointer"] == "/partial"
    before = counted(client)
    worker_node.kill()
    for _ in range(2):
        response = client.post("/api/v1/search", json=body)
        assert response.status_code == 503 and response.json()["code"] == "shards_unavailable"
        assert response.headers["Retry-After"] and "127.0.0.1" not in response.text
    answered = client.post("/api/v1/search", json=body | {"partial": True}).json()
    assert answered["partial"]["unavailable"] and not {hit["source_uri"] for hit in answered["results"]} & missing
    batch = client.post("/api/v1/search/batch", json={"queries": [body | {"partial": True}] * 2}).json()
    assert [each["partial"] for each in batch["results"]] == [answered["partial"]] * 2
    assert counted(client) == before + 3
    batch = client.post("/api/v1/search/batch", json={"queries": [body | {"partial": True}, body]})
    assert batch.status_code == 503
    worker_node.start()
    wait_for(lambda: client.post("/api/v1/search", json=body).status_code == 200, what="the cluster to answer")


def test_writes_are_refused_or_done_and_all_that_was_accepted_goes_live_when_the_node_is_back(
    collection: Collection, client: Any, put: Put, worker_node: Node
) -> None:
    """Workers go on all the while; the outage takes more tries than a job has."""
    accepted: set[str] = set()
    statuses: dict[int, int] = {}

    def write(number: int) -> None:
        body = {"collection": collection.slug, "source_uri": f"w{number}", "text": f"Write number {number}."}
        response = client.post("/api/v1/documents", json=body)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        if response.status_code == 202:
            accepted.add(f"w{number}")
        else:
            assert response.status_code == 503 and response.json()["code"] in (
                "shards_unavailable",
                "database_unavailable",
            )

    short = {"JOB_MAX_ATTEMPTS": "3", "JOB_LEASE_SECONDS": "3", "SWEEP_SECONDS": "1"}
    for number in range(40):  # waiting when the node goes
        write(number)
    with (
        worker(DATA, "prepare", "default", name="away-prepare", pool="threads", **short),
        worker(DATA, "embed", name="away-embed", **short),
    ):

        def swept() -> list[tuple[str, str]]:
            with suppress(OperationalError):
                tasks.sweep()
            with tenancy.scope(collection.tenant_id):
                return list(IngestionJob.objects.filter(collection_id=collection.id).values_list("state", "stage"))

        wait_for(lambda: any(state == "done" for state, _ in swept()), what="some work")
        worker_node.kill()
        until = time.monotonic() + 20
        number = 40
        while time.monotonic() < until:
            write(number)
            number += 1
            assert "dead" not in {state for state, _ in swept()}
            time.sleep(0.1)
        assert statuses.get(503), "the cluster took everything with a node away"
        worker_node.start()
        for late in range(number, number + 10):
            wait_for(lambda: write(late) or f"w{late}" in accepted, what="a write to be accepted")  # noqa: B023
        wait_for(lambda: {state for state, _ in swept()} == {"done"}, seconds=120, what="all jobs to be done")
    with tenancy.scope(collection.tenant_id):
        live = Document.objects.filter(collection=collection, live_version__isnull=False)
        assert set(live.values_list("source_uri", flat=True)) == accepted
