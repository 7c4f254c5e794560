"""Requests that get in one another's way: one outcome, whoever comes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents.models import Collection
from tests.support.refusals import DOCUMENTS, SEARCH, refused


def together(*acts: Callable[[], httpx.Response]) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(acts)) as threads:
        return [future.result() for future in [threads.submit(act) for act in acts]]


def test_eight_identical_writes_make_one_version(client: httpx.Client, collection: Collection) -> None:
    body = {"collection": "docs", "source_uri": "same", "text": "the same text"}
    answers = together(*[lambda: client.post(DOCUMENTS, json=body)] * 8)
    assert Counter(answer.status_code for answer in answers) == {202: 1, 200: 7}
    assert {answer.json()["version"] for answer in answers} == {1}
    assert len(client.get("/api/v1/jobs").json()["results"]) == 1


def test_two_collections_of_one_slug(client: httpx.Client) -> None:
    answers = together(*[lambda: client.post("/api/v1/collections", json={"slug": "twin", "name": "T"})] * 4)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 3}


def test_a_document_changed_deleted_and_written_at_once(
    client: httpx.Client, collection: Collection, workers: object
) -> None:
    body = {"collection": "docs", "source_uri": "busy", "mode": "write_through"}
    made = client.post(DOCUMENTS, json=body | {"text": "first"}).json()["id"]
    acts: list[Callable[[], httpx.Response]] = []
    for number in range(4):
        acts.append(lambda n=number: client.patch(f"{DOCUMENTS}/{made}", json={"title": f"title {n}"}))
        acts.append(lambda: client.delete(f"{DOCUMENTS}/{made}"))
        acts.append(lambda n=number: client.post(DOCUMENTS, json=body | {"text": f"text {n}"}))
    for answer in together(*acts):
        assert answer.status_code in (200, 201, 202, 204, 404), answer.text
    final = client.post(DOCUMENTS, json=body | {"text": "final"})
    assert final.status_code == 201, final.text
    [hit] = client.post(SEARCH, json={"query": "final", "collections": ["docs"]}).json()["results"]
    assert hit["text"] == "final"


def test_a_collection_deleted_while_its_documents_come(client: httpx.Client, tenant: Tenant, workers: object) -> None:
    client.post("/api/v1/collections", json={"slug": "gone", "name": "Gone"})

    def write(number: int) -> httpx.Response:
        mode = "write_through" if number % 2 else "write_back"
        body = {"collection": "gone", "source_uri": f"u{number % 5}", "text": f"Document {number}. " * 50, "mode": mode}
        return client.post(DOCUMENTS, json=body)

    acts: list[Callable[[], httpx.Response]] = [lambda n=n: write(n) for n in range(12)]
    acts.insert(6, lambda: client.delete("/api/v1/collections/gone"))
    acts.insert(9, lambda: client.delete("/api/v1/collections/gone"))
    answers = together(*acts)
    for answer in answers:
        assert answer.status_code in (200, 201, 202, 204, 404, 422), answer.text
    assert 204 in [answer.status_code for answer in answers]
    refused(write(0), 422, "unknown_collection", "/collection")
    refused(client.get("/api/v1/collections/gone"), 404, "unknown_collection")
    with tenancy.scope(tenant.id):
        assert not Collection.objects.filter(slug="gone").exists()
    assert client.post(SEARCH, json={"query": "document"}).json()["results"] == []
