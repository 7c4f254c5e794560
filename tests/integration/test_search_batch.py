"""`POST /api/v1/search/batch`: several searches, one call of the model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.db import connection, connections

from apps.access import keys, tenancy
from apps.access.models import Tenant
from apps.documents.engines import engine_for
from apps.documents.models import Collection, EmbeddingSpace
from apps.retrieval import batch
from apps.retrieval.types import SearchQuery
from tests.conftest import make_collection
from tests.support.processes import Server
from tests.support.refusals import refused

BATCH = "/api/v1/search/batch"


def model_calls(*texts: str) -> list[int]:
    """How many texts each call of the model had that embedded one of these."""
    wanted = {hashlib.sha256(text.encode()).hexdigest() for text in texts}
    lines = map(json.loads, Path(os.environ["RAGSITE_FAKE_EMBED_LOG"]).read_text().splitlines())
    return [line["n"] for line in lines if wanted & set(line["sha256"])]


def test_results_come_in_order_and_are_those_of_single_searches(
    client: httpx.Client, collection: Collection, ingest: Any
) -> None:
    for animal in ("Pangolins", "Otters", "Badgers"):
        ingest(collection, f"{animal} are animals.", source_uri=animal, metadata={"animal": animal})
    queries = [
        {"query": "otters", "mode": "lexical"},
        {"query": "pangolins", "mode": "dense", "k": 2},
        {"query": "animals", "filters": {"metadata.animal": "Badgers"}},
        {"query": "nothing of this", "mode": "lexical", "collections": ["docs"]},
        {"query": "otters", "mode": "lexical"},
    ]
    response = client.post(BATCH, json={"queries": queries})
    assert response.status_code == 200, response.text
    found = response.json()["results"]
    alone = [client.post("/api/v1/search", json=query).json() for query in queries]
    assert [each["results"] for each in found] == [each["results"] for each in alone]
    assert [each["snapshot"] for each in found] == [each["snapshot"] for each in alone]
    assert found[0]["results"][0]["text"] == "Otters are animals."
    assert [len(each["results"]) for each in found] == [1, 2, 1, 0, 1]


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
@pytest.mark.parametrize("past", [False, True], ids=["eventual", "past"])
def test_what_brings_nothing_live_is_of_one_snapshot(
    client: httpx.Client, collection: Collection, ingest: Any, mode: str, past: bool
) -> None:
    ingest(collection, "Pangolins have scales.", source_uri="pangolin")
    time = {"as_of": datetime.now(UTC).isoformat()} if past else {"consistency": "eventual"}
    for count in (1, 2, 5, 2):
        queries = [{"query": f"pangolin {number // 2}", "mode": mode, **time} for number in range(count)]
        response = client.post(BATCH, json={"queries": queries})
        assert response.status_code == 200, response.text
        found = response.json()["results"]
        assert all("pangolin" in [hit["source_uri"] for hit in each["results"]] for each in found)
        assert len(found) == count and all(each["snapshot"] == found[0]["snapshot"] for each in found)
        ingest(collection, f"Nothing of that, {mode} {count}.", source_uri="other")


def test_nothing_that_is_published_meanwhile_shows_in_one_snapshot(
    collection: Collection, ingest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(collection, "A pangolin.", source_uri="first")
    looking = batch.search_fresh

    def publish_then_search(**asked: Any) -> Any:
        found = looking(**asked)
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(ingest, collection, "Another pangolin.", source_uri=str(uuid4())).result()
            elsewhere.submit(connections.close_all).result()
        return found

    monkeypatch.setattr(batch, "search_fresh", publish_then_search)
    query = SearchQuery("pangolin", mode="lexical", consistency="eventual")
    found = batch.search_batch(tenant_id=collection.tenant_id, queries=[query] * 3)
    if engine_for(connection).whole_snapshots:
        assert [len(each.hits) for each in found] == [1, 1, 1]
    assert not tenancy.is_open() and tenancy.current() == ""


def test_all_new_vectors_are_of_one_call(client: httpx.Client, collection: Collection, ingest: Any) -> None:
    ingest(collection, "Pangolins have scales.")
    texts = [f"question {number} {uuid4()}" for number in range(40)]
    queries = [{"query": text, "mode": "dense"} for text in (*texts, texts[0])]
    assert client.post(BATCH, json={"queries": queries}).status_code == 200
    assert model_calls(*texts) == [40]
    more = [{"query": text, "mode": "hybrid"} for text in (*texts, f"new {uuid4()}")]
    assert client.post(BATCH, json={"queries": more}).status_code == 200
    assert model_calls(*texts) == [40]


def test_256_queries_and_no_more(client: httpx.Client, collection: Collection, ingest: Any) -> None:
    ingest(collection, "Pangolins have scales.")
    queries = [{"query": f"pangolin {number}", "mode": "lexical"} for number in range(256)]
    found = client.post(BATCH, json={"queries": queries}).json()["results"]
    assert [each["results"][0]["text"] for each in found] == ["Pangolins have scales."] * 256
    refused(client.post(BATCH, json={"queries": [*queries, queries[0]]}), 400, "invalid", "/queries")


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({}, 400, "invalid", "/queries"),
        ({"queries": []}, 400, "invalid", "/queries"),
        ({"queries": "a"}, 400, "invalid", "/queries"),
        ({"queries": ["a"]}, 400, "invalid", "/queries/0"),
        ({"queries": [{"query": "a"}, {"query": "b", "k": 0}]}, 400, "invalid", "/queries/1/k"),
        ({"queries": [{"query": "a"}, {"query": "b", "unheard": 1}]}, 400, "invalid", "/queries/1/unheard"),
        (
            {"queries": [{"query": "a"}, {"query": "b", "filters": {"title": {"$near": 1}}}]},
            *(400, "invalid", "/queries/1/filters/title/$near"),
        ),
        (
            {"queries": [{"query": "a"}, {"query": "b", "collections": ["no-such"]}]},
            *(404, "unknown_collection", "/queries/1"),
        ),
        (
            {"queries": [{"query": "a", "mode": "lexical"}, {"query": "b", "collections": ["no"], "mode": "lexical"}]},
            *(404, "unknown_collection", "/queries/1"),
        ),
        ({"queries": [{"query": "a"}], "k": 3}, 400, "invalid", "/k"),
    ],
)
def test_a_refusal_points_at_the_query(
    client: httpx.Client, collection: Collection, body: dict, status: int, code: str, pointer: str
) -> None:
    refused(client.post(BATCH, json=body), status, code, pointer)


def test_mixed_spaces_point_at_the_query(client: httpx.Client, tenant: Tenant, real_space: EmbeddingSpace) -> None:
    make_collection(tenant, slug="one")
    make_collection(tenant, slug="other", space=real_space.slug)
    queries = [{"query": "a", "collections": ["one"]}, {"query": "b"}]
    refused(client.post(BATCH, json={"queries": queries}), 422, "mixed_spaces", "/queries/1/collections")


def test_shows_nothing_of_another_tenant(
    client: httpx.Client, collection: Collection, other_tenant: Tenant, ingest: Any, web: Server, make_key: Callable
) -> None:
    ingest(collection, "Pangolins have scales.")
    queries = {"queries": [{"query": "pangolins", "mode": "lexical"}] * 2}
    assert all(each["results"] for each in client.post(BATCH, json=queries).json()["results"])
    make_collection(other_tenant)
    with web.client(make_key(other_tenant)) as theirs:
        assert [each["results"] for each in theirs.post(BATCH, json=queries).json()["results"]] == [[], []]


def test_counts_as_so_many_requests(web: Server, tenant: Tenant, collection: Collection) -> None:
    secret = keys.create_key(tenant_id=tenant.id, name="slow", scopes=["read"], requests_per_minute=100)[1]
    with web.client(secret) as client:
        queries = [{"query": "a", "mode": "lexical"}] * 60
        statuses = [client.post(BATCH, json={"queries": queries}).status_code for _ in range(4)]
    assert statuses[0] == 200
    assert 429 in statuses


def test_needs_the_scope_read(web: Server, tenant: Tenant, make_key: Callable) -> None:
    with web.client(make_key(tenant, "write")) as client:
        refused(client.post(BATCH, json={"queries": [{"query": "a"}]}), 403, "missing_scope")
