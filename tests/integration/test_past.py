"""Searches of the past: collections as they were at a time, and one version of a document."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Event
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import httpx
import numpy as np
import pytest
from django.db import connection
from django.test import override_settings

from apps.access import tenancy
from apps.documents import db, embed, prepare, publish, reindex, remove
from apps.documents.accept import Accepted
from apps.documents.models import Collection, DocumentVersion
from apps.retrieval import policy, rerank, statement
from apps.retrieval.filters import compile_filter
from apps.retrieval.rerank.served import ServedReranker
from apps.retrieval.scopes import scopes_of
from apps.retrieval.search import search
from apps.retrieval.types import Hit, SearchQuery
from tests.conftest import make_collection
from tests.support.asking import ask
from tests.support.fake_reranker import fake_reranker
from tests.support.refusals import SEARCH, refused

from .test_ingest import paragraphs

Put = Callable[..., Accepted]
MODES = ("dense", "lexical", "hybrid")


def now(collection: Collection) -> datetime:
    with tenancy.scope(collection.tenant_id):
        return db.clock()


def hits(collection: Collection, query: str = "harbour", *, k: int = 50, **values: Any) -> list[Hit]:
    return search(tenant_id=collection.tenant_id, query=SearchQuery(query, k=k, **values)).hits


def verified(collection: Collection, found: list[Hit]) -> bool:
    """Does each hit stand in its version's text where it says?"""
    with tenancy.scope(collection.tenant_id):
        texts = {
            (row.document_id, row.version): row.text
            for row in DocumentVersion.objects.filter(document_id__in={hit.document_id for hit in found})
        }
    return all(texts[hit.document_id, hit.version][hit.start : hit.end] == hit.text for hit in found)


@pytest.mark.parametrize("mode", MODES)
def test_each_time_has_its_version(collection: Collection, ingest: Put, mode: str) -> None:
    times = [now(collection)]
    for hour in ("nine", "ten", "eleven"):
        ingest(collection, f"The harbour opens at {hour}.")
        times.append(now(collection))
    for version, at in enumerate(times):
        found = hits(collection, mode=mode, as_of=at)
        assert [hit.version for hit in found] == ([version] if version else [])
        assert [hit.fresh for hit in found] == ([version == 3] if version else [])
        assert verified(collection, found)


def test_what_an_edit_leaves_alone_stands_where_it_stood(collection: Collection, ingest: Put) -> None:
    parts = paragraphs(30, seed="past")
    ingest(collection, "\n\n".join(parts))
    before = now(collection)
    first = {(hit.chunk_id, hit.start, hit.end, hit.version, hit.text) for hit in hits(collection, parts[20])}
    ingest(collection, "\n\n".join(["An opening that was not there.", *parts]))
    assert {hit.version for hit in hits(collection, parts[20])} == {2}
    found = hits(collection, parts[20], as_of=before)
    assert {(hit.chunk_id, hit.start, hit.end, hit.version, hit.text) for hit in found} == first
    assert verified(collection, found)


def test_a_delete_and_a_revival_have_their_times(collection: Collection, ingest: Put) -> None:
    document = ingest(collection, "The harbour opens at nine.").document
    live = now(collection)
    remove.delete(tenant_id=collection.tenant_id, document_id=document.id)
    deleted = now(collection)
    (found,) = hits(collection, as_of=live)
    assert (found.version, found.fresh) == (1, False) and hits(collection, as_of=deleted) == []
    ingest(collection, "The harbour opens again.", version=5)
    assert [hit.version for hit in hits(collection, as_of=now(collection))] == [5]
    assert hits(collection, as_of=deleted) == []
    assert [hit.version for hit in hits(collection, as_of=live)] == [1]


def test_what_is_erased_is_in_no_past(collection: Collection, ingest: Put) -> None:
    document = ingest(collection, "The harbour opens at nine.").document
    live = now(collection)
    remove.delete(tenant_id=collection.tenant_id, document_id=document.id)
    with tenancy.scope(collection.tenant_id):
        epoch = Collection.objects.get(id=collection.id).epoch
    assert len(hits(collection, as_of=live)) == 1
    remove.delete(tenant_id=collection.tenant_id, document_id=document.id, erase=True)
    assert hits(collection, as_of=live) == []
    with tenancy.scope(collection.tenant_id):
        assert Collection.objects.get(id=collection.id).epoch > epoch, "a cached result must not outlive it"


def test_the_same_content_under_a_higher_number(collection: Collection, ingest: Put, put: Put) -> None:
    ingest(collection, "The harbour opens at nine.", version=1)
    first = now(collection)
    put(collection, "The harbour opens at nine.", version=4)
    second = now(collection)
    ingest(collection, "The harbour opens at ten.", version=6)
    asked = [hits(collection, as_of=at) for at in (first, second, now(collection))]
    assert [[hit.version for hit in found] for found in asked] == [[1], [4], [6]]
    assert all(verified(collection, found) for found in asked)


def test_a_content_that_was_repeated_while_it_waited(collection: Collection, ingest: Put, put: Put) -> None:
    ingest(collection, "The harbour opens at nine.", version=1)
    first = now(collection)
    pending = put(collection, "The harbour opens at ten.", version=2)
    put(collection, "The harbour opens at ten.", version=3)
    waiting = now(collection)
    for step in (prepare, embed):
        step.drain(job_id=pending.job.id)  # type: ignore[union-attr, attr-defined]
    asked = [hits(collection, as_of=at) for at in (first, waiting, now(collection))]
    assert [[hit.version for hit in found] for found in asked] == [[1], [1], [3]]


def test_a_failed_update_was_never_there(collection: Collection, ingest: Put) -> None:
    ingest(collection, "The harbour opens at nine.")
    ingest(collection, b"%PDF-1.7 broken", media_type="application/pdf")
    assert [hit.version for hit in hits(collection, as_of=now(collection))] == [1]


def test_a_reindexed_version_is_placed_as_it_was_cut_then(collection: Collection, ingest: Put) -> None:
    text = "\n\n".join(paragraphs(12, seed="cut"))
    ingest(collection, text)
    times, cuts = [], []
    for tokens in (200, 90, 40):
        if tokens != 200:
            with tenancy.scope(collection.tenant_id):
                Collection.objects.filter(id=collection.id).update(chunking_max_tokens=tokens)
                reindex.request(collection=collection)
            while reindex.feed() or prepare.drain() or embed.drain():
                pass
        times.append(now(collection))
        cuts.append({(hit.chunk_id, hit.start, hit.end, hit.revision) for hit in hits(collection, text, k=200)})
    assert [{revision for *_, revision in cut} for cut in cuts] == [{0}, {1}, {2}]
    for at, cut in zip(times, cuts, strict=True):
        found = hits(collection, text, k=200, as_of=at)
        assert {(hit.chunk_id, hit.start, hit.end, hit.revision) for hit in found} == cut
        assert verified(collection, found)


def test_one_version_of_a_document(collection: Collection, ingest: Put) -> None:
    other = ingest(collection, "Another harbour.", source_uri="other").document
    for hour in ("nine", "ten"):
        document = ingest(collection, f"The harbour opens at {hour}.").document
    for mode in MODES:
        for version, hour in ((1, "nine"), (2, "ten")):
            (found,) = hits(collection, mode=mode, pinned=(document.id, version))
            assert (found.version, found.fresh) == (version, version == 2) and hour in found.text
    assert hits(collection, pinned=(document.id, 1), filter=compile_filter({"source_uri": "other"})) == []
    assert [hit.source_uri for hit in hits(collection, pinned=(other.id, 1))] == ["other"]


@pytest.mark.parametrize("path", ["exact", "index", "index and filter", "few"])
def test_the_past_of_a_collection_that_has_an_index_is_complete(
    collection: Collection, ingest: Put, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Half of what was live then is in the vector index, half has been retired, and as much has come since."""
    for number in range(40):
        ingest(collection, f"Harbour {number}.", source_uri=f"d{number}", metadata={"even": number % 2 == 0})
    then = now(collection)
    expected = {
        (hit.source_uri, hit.version, hit.text): hit.scores["dense"] for hit in hits(collection, mode="dense", k=200)
    }
    for number in range(0, 40, 2):
        ingest(collection, f"Harbour {number} rebuilt.", source_uri=f"d{number}", metadata={"even": True})
    for number in range(40, 80):
        ingest(collection, f"Harbour {number}.", source_uri=f"d{number}", metadata={"even": True})
    most = 10_000 if path in ("few", "exact") else 1
    monkeypatch.setattr(policy, "most_compared", lambda scopes, wanted: most)
    found_filter = compile_filter({"metadata.even": False}) if path == "index and filter" else None
    if found_filter:
        expected = {key: score for key, score in expected.items() if int(key[0][1:]) % 2}
    with override_settings(EXACT_SCAN_ROWS=5_000 if path == "exact" else 0):
        found = hits(collection, mode="dense", k=200, as_of=then, filter=found_filter)
    assert {(hit.source_uri, hit.version, hit.text): hit.scores["dense"] for hit in found} == pytest.approx(expected)


def test_a_publish_lies_between_its_begin_and_its_return(collection: Collection, put: Put) -> None:
    """What began after a time is not in it, what had returned before it is; also when the publish takes a while, and
    when it had to wait for another that stamped its rows later."""
    for number in range(6):
        accepted = put(collection, f"The harbour, number {number}.")
        prepare.drain(job_id=accepted.job.id)  # type: ignore[union-attr]
        began = now(collection)
        embed.drain(job_id=accepted.job.id)  # type: ignore[union-attr]
        returned = now(collection)
        assert [hit.version for hit in hits(collection, as_of=began)] == ([number] if number else [])
        assert [hit.version for hit in hits(collection, as_of=returned)] == [number + 1]


def test_a_delete_that_waits_for_a_publish_comes_after_it(collection: Collection, ingest: Put, put: Put) -> None:
    """Its transaction began before; stamped with that time, what was published meanwhile would never have been live."""
    document = ingest(collection, "The harbour opens at nine.").document
    accepted = put(collection, "The harbour opens at ten.")
    prepare.drain(job_id=accepted.job.id)  # type: ignore[union-attr]
    swapping, go_on = Event(), Event()
    finish = publish.ledger.finish

    def slowly(*args: Any, **values: Any) -> None:
        swapping.set()
        go_on.wait(20)
        finish(*args, **values)

    def drain() -> None:
        embed.drain(job_id=accepted.job.id)  # type: ignore[union-attr]
        connection.close()

    def delete() -> None:
        remove.delete(tenant_id=collection.tenant_id, document_id=document.id)
        connection.close()

    with ThreadPoolExecutor(2) as pool, patch.object(publish.ledger, "finish", slowly):
        published = pool.submit(drain)
        assert swapping.wait(20)
        deleted = pool.submit(delete)
        time.sleep(0.3)
        between = now(collection)
        go_on.set()
        published.result()
        deleted.result()
    assert [hit.version for hit in hits(collection, as_of=between)] == [2]
    assert hits(collection, as_of=now(collection)) == []


def test_the_retired_are_found_through_their_own_index(
    collection: Collection, ingest: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(collection, "The harbour opens at nine.")
    monkeypatch.setattr(policy, "most_compared", lambda scopes, wanted: 0)
    query = SearchQuery("harbour", mode="dense", as_of=now(collection))
    with tenancy.scope(collection.tenant_id), override_settings(EXACT_SCAN_ROWS=0), connection.cursor() as cursor:
        vector = np.ones(collection.space.dimensions, np.float32).tolist()
        scopes = scopes_of(None)
        sql, values = statement.compose(scopes, query, vector, statement.choose(scopes, query))
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")  # as if there were more rows
        cursor.execute("EXPLAIN " + sql, values)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "chunk_retired" in plan or "collection_id_retired_at" in plan, plan
    assert "embedding_idx" in plan or "_vectors" in plan, plan


def test_over_http(client: httpx.Client, collection: Collection, ingest: Put) -> None:
    document = ingest(collection, "The harbour opens at nine.").document
    then = now(collection)
    ingest(collection, "The harbour opens at ten.")
    for asked in (
        {"as_of": then.isoformat()},
        {"as_of": then.isoformat().replace("+00:00", "Z")},
        {"as_of": then.astimezone().isoformat(), "consistency": "bounded"},
        {"filters": {"document_id": str(document.id), "version": 1}},
        {"filters": {"document_id": {"$eq": str(document.id)}, "version": {"$eq": 1}, "source_uri": "doc"}},
    ):
        found = client.post(SEARCH, json={"query": "harbour"} | asked).json()
        assert [(hit["version"], hit["fresh"]) for hit in found["results"]] == [(1, False)], asked
        assert found["stale"] == []
        answer = ask(client, "When does the harbour open?", **asked)
        assert [each["version"] for each in answer["citations"]] == [1] and "nine" in answer["answer"]
        chat = {"model": "ragsite/docs", "messages": [{"role": "user", "content": "When does the harbour open?"}]}
        said = client.post("/v1/chat/completions", json=chat | asked).json()["choices"][0]["message"]
        assert [each["version"] for each in said["citations"]] == [1]
        assert client.get(f"/api/v1/answers/{answer['id']}/verify").json()["verified"]


FUTURE = "2999-01-01T00:00:00+00:00"
SOME = str(UUID(int=5))


@pytest.mark.parametrize(
    ("fields", "status", "code", "pointer"),
    [
        ({"as_of": FUTURE}, 422, "future_time", "/as_of"),
        ({"as_of": "2026-01-31T12:00:00"}, 422, "zone_missing", "/as_of"),
        *(({"as_of": value}, 400, "invalid", "/as_of") for value in ("yesterday", "", 5, [], "2026-02-31T12:00:00Z")),
        ({"as_of": "2026-01-31T12:00:00Z", "consistency": "strong"}, 400, "invalid", "/consistency"),
        ({"as_of": "2026-01-31T12:00:00Z", "min_versions": {SOME: 1}}, 400, "invalid", "/min_versions"),
        (
            {"as_of": "2026-01-31T12:00:00Z", "filters": {"document_id": SOME, "version": 1}},
            *(400, "invalid", "/as_of"),
        ),
        ({"filters": {"version": 1}}, 400, "invalid", "/filters/version"),
        ({"filters": {"version": {"$gte": 1}, "document_id": SOME}}, 400, "invalid", "/filters/version"),
        ({"filters": {"version": "1", "document_id": SOME}}, 400, "invalid", "/filters/version"),
        ({"filters": {"version": 1, "document_id": {"$ne": SOME}}}, 400, "invalid", "/filters/version"),
        ({"filters": {"$not": {"version": 1}}}, 400, "invalid", "/filters/$not/version"),
        ({"filters": {"version": 1, "document_id": SOME}}, 422, "unknown_version", "/filters/version"),
    ],
    ids=lambda value: json.dumps(value)[:50],
)
def test_a_time_that_is_none_is_refused(
    client: httpx.Client, collection: Collection, ingest: Put, fields: dict, status: int, code: str, pointer: str
) -> None:
    ingest(collection, "The harbour.")
    refused(client.post(SEARCH, json={"query": "a"} | fields), status, code, pointer)
    refused(client.post("/api/v1/answers", json={"question": "a"} | fields), status, code, pointer)


def test_another_tenants_version_is_as_unknown_as_none(
    client: httpx.Client, collection: Collection, other_tenant: Any, ingest: Put
) -> None:
    theirs = ingest(make_collection(other_tenant), "The harbour.").document.id
    ingest(collection, "The harbour.")
    told = [
        client.post(SEARCH, json={"query": "a", "filters": {"document_id": str(document_id), "version": 1}}).json()
        for document_id in (theirs, uuid4())
    ]
    for each in told:
        each.pop("request_id")
        each["detail"] = each["detail"].split(" of document ")[0]
        each["errors"][0]["detail"] = each["errors"][0]["detail"].split(" of document ")[0]
    assert told[0] == told[1] and told[0]["code"] == "unknown_version"


def test_the_past_is_reranked_diversified_and_widened_as_the_present_is(
    collection: Collection, ingest: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = ingest(collection, "\n\n".join(["The harbour opens at nine.", *paragraphs(8, seed="wide")])).document
    then = now(collection)
    remove.delete(tenant_id=collection.tenant_id, document_id=document.id)
    with fake_reranker() as server:
        served = ServedReranker(url=server.url + "/rerank", model="ranker", api_key="", timeout=10)
        monkeypatch.setattr(rerank, "configured", lambda: served)
        plain = hits(collection, as_of=then)
        for refined in ({"rerank": True}, {"diversify": 0.5}, {"expand": 1}, {"rerank": True, "expand": 1}):
            found = hits(collection, as_of=then, **refined)  # type: ignore[arg-type]
            assert {hit.chunk_id for hit in found} == {hit.chunk_id for hit in plain} and found, refined
            assert verified(collection, found)
        erase = functools.partial(remove.delete, tenant_id=collection.tenant_id, document_id=document.id, erase=True)
        server.during = lambda: (erase(), connection.close())  # type: ignore[func-returns-value]
        assert hits(collection, as_of=then, rerank=True) == [], "erased while a model looked at it"
