"""How fresh a search is: `eventual`, `bounded`, `strong` and `min_versions`; no workers run but those played here."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from django.db import connection, connections
from django.test import override_settings

from apps.access import tenancy
from apps.access.problems import Problem
from apps.documents import ahead, embed, ledger, prepare, remove
from apps.documents.accept import Accepted
from apps.documents.engines import engine_for
from apps.documents.models import Collection, Document, IngestionJob
from apps.retrieval.filters import compile_filter
from apps.retrieval.freshness import search_fresh
from apps.retrieval.statement import QUERIES
from apps.retrieval.types import SearchQuery, SearchResult
from tests.conftest import make_collection
from tests.support.asking import ask
from tests.support.refusals import SEARCH, refused

from .test_ingest import embedded_texts, paragraphs, times_embedded

Put = Callable[..., Accepted]


def read(collection: Collection, query: str = "harbour", consistency: str = "strong", **values: Any) -> SearchResult:
    asked = SearchQuery(query, consistency=consistency, **values)
    return search_fresh(tenant_id=collection.tenant_id, query=asked)


def versions(found: SearchResult) -> set[int]:
    return {hit.version for hit in found.hits}


def job(accepted: Accepted) -> IngestionJob:
    with tenancy.scope(accepted.document.tenant_id):
        return IngestionJob.objects.get(id=accepted.job.id)  # type: ignore[union-attr]


def waits_since(accepted: Accepted, *, seconds: float) -> None:
    """Let the document have waited for so long."""
    with tenancy.scope(accepted.document.tenant_id), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE documents_document SET pending_since = now() - make_interval(secs => %s) WHERE id = %s",
            [seconds, accepted.document.id],
        )


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is sent to the database meanwhile, by Django's cursors or prepared (psycopg's own)."""
    import psycopg

    sent: list[str] = []
    execute = psycopg.Cursor.execute

    def noted(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        sent.append(str(query))
        return execute(self, query, *args, **kwargs)

    psycopg.Cursor.execute = noted  # type: ignore[method-assign]
    try:
        yield sent
    finally:
        psycopg.Cursor.execute = execute  # type: ignore[method-assign]


def test_eventual_takes_what_is_live_and_says_that_it_is_not_the_newest(
    collection: Collection, ingest: Put, put: Put
) -> None:
    document = ingest(collection, "The harbour opens at nine.").document
    put(collection, "The harbour opens at ten.")
    found = read(collection, consistency="eventual")
    assert [(hit.version, hit.fresh) for hit in found.hits] == [(1, False)]
    assert found.stale == [{"document_id": document.id, "live_version": 1, "version": 2}]


def test_strong_reads_what_was_accepted_before_it(collection: Collection, ingest: Put, put: Put) -> None:
    ingest(collection, "The harbour opens at nine.")
    newer = put(collection, "The harbour opens at ten.")
    found = read(collection)
    assert [(hit.version, hit.fresh, hit.text) for hit in found.hits] == [(2, True, "The harbour opens at ten.")]
    assert found.stale == [] and found.timings["fresh_ms"] > 0
    done = job(newer)
    assert (done.state, done.outcome) == ("done", "published"), "by the job that was there for it"
    with tenancy.scope(collection.tenant_id):
        assert Document.objects.get(id=newer.document.id).live_version == 2, "nothing that was read is thrown away"


def test_strong_finds_documents_that_were_never_live(collection: Collection, put: Put) -> None:
    put(collection, "The harbour is new.", source_uri="a")
    put(collection, "So is the harbour's light.", source_uri="b")
    assert {hit.source_uri for hit in read(collection).hits} == {"a", "b"}


def test_strong_finds_what_has_been_prepared_already(collection: Collection, put: Put) -> None:
    accepted = put(collection, "The harbour is prepared.")
    prepare.drain(job_id=accepted.job.id)  # type: ignore[union-attr]
    assert versions(read(collection)) == {1}


def test_bounded_lets_a_version_wait_for_the_collections_window(tenant: Any, ingest: Put, put: Put) -> None:
    collection = make_collection(tenant, consistency={"window_seconds": 20})
    ingest(collection, "The harbour opens at nine.")
    newer = put(collection, "The harbour opens at ten.")
    found = read(collection, consistency="bounded")
    assert versions(found) == {1} and [each["version"] for each in found.stale] == [2]
    waits_since(newer, seconds=21)
    found = read(collection, consistency="bounded")
    assert versions(found) == {2} and found.stale == []


def test_bounded_costs_no_statement_more_where_nothing_is_stale(collection: Collection, ingest: Put) -> None:
    ingest(collection, "The harbour opens at nine.")
    for consistency in ("eventual", "bounded"):  # caches are warm after them
        read(collection, consistency=consistency)
    with statements() as eventual:
        read(collection, consistency="eventual")
    with statements() as bounded:
        read(collection, consistency="bounded")
    assert bounded == eventual and len(eventual) > 1


def test_an_update_that_says_no_word_of_it_any_more_is_found_no_more(
    collection: Collection, ingest: Put, put: Put
) -> None:
    ingest(collection, "The harbour opens at nine.")
    put(collection, "Nothing of the kind.")
    found = read(collection, mode="lexical")
    assert found.hits == [] and found.stale == []


def test_named_versions_are_read_and_nothing_else_is_touched(collection: Collection, ingest: Put, put: Put) -> None:
    ingest(collection, "The harbour of one.", source_uri="one")
    ingest(collection, "The harbour of two.", source_uri="two")
    one = put(collection, "The harbour of one, again.", source_uri="one")
    put(collection, "The harbour of two, again.", source_uri="two")
    found = read(collection, consistency="eventual", min_versions=((one.document.id, 2),))
    assert {(hit.source_uri, hit.version, hit.fresh) for hit in found.hits} == {("one", 2, True), ("two", 1, False)}
    assert len(found.stale) == 1
    before = {text: times_embedded(text) for text in ("The harbour of one, again.", "The harbour of two, again.")}
    assert list(before.values()) == [1, 0]
    read(collection, consistency="eventual", min_versions=((one.document.id, 1),))
    assert {text: times_embedded(text) for text in before} == before, "it is there already"


@pytest.mark.parametrize("unknown", ["version", "document", "another's"])
def test_a_version_that_nobody_sent_is_named(
    collection: Collection, other_tenant: Any, ingest: Put, unknown: str
) -> None:
    mine = ingest(collection, "The harbour.").document.id
    theirs = ingest(make_collection(other_tenant), "The harbour.").document.id
    named = {"version": (mine, 2), "document": (uuid4(), 1), "another's": (theirs, 1)}[unknown]
    with pytest.raises(Problem) as refused:
        read(collection, min_versions=(named,))
    assert (refused.value.status_code, refused.value.code) == (422, "unknown_version")
    assert refused.value.errors is not None and refused.value.errors[0]["pointer"] == f"/min_versions/{named[0]}"


def test_a_failed_version_is_stale_and_the_old_one_answers(collection: Collection, ingest: Put, put: Put) -> None:
    document = ingest(collection, "The harbour opens at nine.").document
    broken = put(collection, b"%PDF-1.7 broken", media_type="application/pdf")
    for asked in ({"consistency": "strong"}, {"min_versions": ((document.id, 2),)}):
        found = read(collection, **asked)  # type: ignore[arg-type]
        assert [(hit.version, hit.fresh) for hit in found.hits] == [(1, False)]
        assert found.stale == [{"document_id": document.id, "live_version": 1, "version": 2}]
    assert job(broken).state == "dead"


def test_a_first_version_that_failed_is_stale_as_well(collection: Collection, put: Put) -> None:
    document = put(collection, b"%PDF-1.7 broken", media_type="application/pdf").document
    for _ in range(2):
        assert read(collection).stale == [{"document_id": document.id, "live_version": None, "version": 1}]


def test_a_large_document_is_left_to_the_workers_and_told(collection: Collection, ingest: Put, put: Put) -> None:
    document = ingest(collection, "The harbour opens at nine.").document
    large = put(collection, "The harbour. " * 25_000)
    with override_settings(FRESH_MILLISECONDS=300):
        for asked in ({"consistency": "strong"}, {"min_versions": ((document.id, 2),)}):
            found = read(collection, **asked)  # type: ignore[arg-type]
            assert versions(found) == {1} and found.stale[0]["version"] == 2
    assert (job(large).state, job(large).attempts) == ("queued", 0)


def test_a_named_large_document_is_waited_for(collection: Collection, put: Put) -> None:
    text = "The harbour. " + "\n\n".join(paragraphs(1_200))
    large = put(collection, text)
    assert large.job is not None and large.job.bytes > ahead.MOST_BYTES

    def worker() -> None:
        time.sleep(0.2)
        prepare.drain(job_id=large.job.id)  # type: ignore[union-attr]
        embed.drain(job_id=large.job.id)  # type: ignore[union-attr]
        connection.close()

    with ThreadPoolExecutor(1) as pool, override_settings(FRESH_MILLISECONDS=30_000):
        done = pool.submit(worker)
        found = read(collection, consistency="eventual", min_versions=((large.document.id, 1),))
        done.result()
    assert versions(found) == {1} and found.stale == []


def test_what_is_to_be_tried_again_later_is_not_tried_by_readers(
    collection: Collection, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedding server that is away must not have its documents' attempts worn out by whoever reads."""
    monkeypatch.setattr(ledger, "BACKOFF_SECONDS", 60.0)
    accepted = put(collection, "The harbour opens at nine.")
    (held,) = ledger.claim(stage="prepare", job_id=accepted.job.id)  # type: ignore[union-attr]
    ledger.fail(held, {"code": "away", "detail": "It is away."}, retryable=True)
    for _ in range(5):
        found = read(collection)
        assert found.hits == [] and len(found.stale) == 1
    assert (job(accepted).state, job(accepted).attempts) == ("queued", 1)


@pytest.mark.parametrize("stage", ["prepare", "embed"])
def test_a_worker_that_does_not_finish_loses_the_job(collection: Collection, put: Put, stage: str) -> None:
    accepted = put(collection, "The harbour opens at nine.")
    job_id = accepted.job.id  # type: ignore[union-attr]
    if stage == "embed":
        prepare.drain(job_id=job_id)
    claims = ledger.claim(stage=stage, job_id=job_id)
    with override_settings(FRESH_MILLISECONDS=4_000):
        began = time.monotonic()
        found = read(collection)
        assert time.monotonic() - began > 0.5, "healthy workers are not robbed at once"
    assert versions(found) == {1} and found.stale == []
    if stage == "prepare":
        ledger.together(prepare.prepare, claims)
    else:
        ledger.together(embed.embed, claims)  # it wakes up, and finds that the job is not its own
    with tenancy.scope(collection.tenant_id):
        assert Collection.objects.get(id=collection.id).epoch == 1, "published once"
    assert job(accepted).state == "done"


def test_a_job_of_another_reader_is_not_taken_from_it(collection: Collection, put: Put) -> None:
    accepted = put(collection, "The harbour opens at nine.")
    with tenancy.scope(collection.tenant_id):
        (held,) = ledger.claim_these([accepted.job.id], stage="prepare", tries=2, take_over=False)  # type: ignore[union-attr]
    with override_settings(FRESH_MILLISECONDS=300):
        found = read(collection)
    assert found.hits == [] and len(found.stale) == 1
    assert job(accepted).fence == held.fence


def test_many_readers_of_one_document_wait_for_one(collection: Collection, put: Put) -> None:
    text = "The harbour. " + "\n\n".join(paragraphs(40, seed="many readers"))
    accepted = put(collection, text)
    before = embedded_texts()

    def reader(_: int) -> set[int]:
        try:
            return versions(read(collection, consistency="strong", mode="lexical"))
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool, override_settings(FRESH_MILLISECONDS=20_000):
        assert list(pool.map(reader, range(6))) == [{1}] * 6
    with tenancy.scope(collection.tenant_id):
        stored = Collection.objects.get(id=collection.id)
    assert embedded_texts() - before == stored.chunks and stored.epoch == 1
    assert job(accepted).outcome == "published"


def test_of_more_than_the_budget_allows_those_that_match_come_first(collection: Collection, put: Put) -> None:
    for number in range(12):
        put(collection, f"Number {number} is about gardens.", source_uri=f"other {number}")
    for number in range(3):
        put(collection, f"Number {number} has a harbour.", source_uri=f"match {number}")
    with override_settings(FRESH_DOCUMENTS=3, FRESH_MILLISECONDS=20_000):
        found = read(collection, mode="lexical")
    assert {hit.source_uri for hit in found.hits} == {"match 0", "match 1", "match 2"}
    assert len(found.stale) == 12 and {each["live_version"] for each in found.stale} == {None}


def test_hits_come_before_what_only_waits(collection: Collection, ingest: Put, put: Put) -> None:
    for number in range(5):
        put(collection, f"Harbour number {number}.", source_uri=f"new {number}")
    ingest(collection, "The harbour opens at nine.", source_uri="old")
    put(collection, "The harbour opens at ten.", source_uri="old")
    with override_settings(FRESH_DOCUMENTS=1):
        found = read(collection, mode="lexical")
    assert [(hit.source_uri, hit.version) for hit in found.hits] == [("old", 2)] and len(found.stale) == 5


def test_the_budget_counts_bytes(collection: Collection, put: Put) -> None:
    put(collection, "The harbour. " * 100, source_uri="a")
    put(collection, "The harbour. " * 100, source_uri="b")
    with override_settings(FRESH_BYTES=2_000):
        found = read(collection)
    assert len({hit.document_id for hit in found.hits}) == 1 and len(found.stale) == 1


def test_a_long_list_of_stale_documents_is_cut_and_counted(collection: Collection, put: Put) -> None:
    for number in range(120):
        put(collection, f"Harbour {number}.", source_uri=f"d{number}")
    with override_settings(FRESH_DOCUMENTS=0):
        found = read(collection)
    assert (len(found.stale), found.stale_more) == (100, 20)


def test_a_strong_read_with_a_filter_is_about_what_passes_it(collection: Collection, put: Put) -> None:
    put(collection, "The harbour of Kiel.", source_uri="kiel", metadata={"land": "de"})
    other = put(collection, "The harbour of Brest.", source_uri="brest", metadata={"land": "fr"})
    found = read(collection, filter=compile_filter({"metadata.land": "de"}))
    assert {hit.source_uri for hit in found.hits} == {"kiel"} and found.stale == []
    assert job(other).state == "queued"


def test_a_deleted_document_is_not_waited_for(collection: Collection, ingest: Put, put: Put) -> None:
    document = ingest(collection, "The harbour opens at nine.").document
    put(collection, "The harbour opens at ten.")
    remove.delete(tenant_id=collection.tenant_id, document_id=document.id)
    found = read(collection, min_versions=((document.id, 2),))
    assert found.hits == [] and found.stale == []


def test_over_http_bounded_is_the_default_and_strong_reads_ones_own_writes(
    client: httpx.Client, collection: Collection
) -> None:
    body = {"collection": "docs", "source_uri": "h", "text": "The harbour opens at nine."}
    accepted = client.post("/api/v1/documents", json=body).json()
    found = client.post(SEARCH, json={"query": "harbour"}).json()
    assert found["results"] == [] and found["stale"] == []
    for asked in ({"consistency": "strong"}, {"min_versions": {accepted["id"]: 1}}):
        found = client.post(SEARCH, json={"query": "harbour"} | asked).json()
        assert [(hit["version"], hit["fresh"]) for hit in found["results"]] == [(1, True)]
        assert (found["stale"], found["stale_more"]) == ([], 0)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"consistency": 1}, "/consistency"),
        *(
            ({"min_versions": value}, "/min_versions")
            for value in ([], "x", 5, {str(UUID(int=number)): 1 for number in range(101)})
        ),
        ({"min_versions": {"x": 1}}, "/min_versions/x"),
        *(({"min_versions": {str(UUID(int=1)): value}}, f"/min_versions/{UUID(int=1)}") for value in (0, "1", 2**63)),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_a_bad_field_is_named(client: httpx.Client, collection: Collection, fields: dict, pointer: str) -> None:
    refused(client.post(SEARCH, json={"query": "a"} | fields), 400, pointer=pointer)


def test_answers_and_chats_are_as_fresh_as_they_ask(client: httpx.Client, collection: Collection) -> None:
    def write(text: str) -> dict[str, Any]:
        return client.post("/api/v1/documents", json={"collection": "docs", "source_uri": "h", "text": text}).json()

    first = write("The harbour opens at nine.")
    found = ask(client, "When does the harbour open?", consistency="strong")
    assert [(each["version"], each["document_id"]) for each in found["citations"]] == [(1, first["id"])]
    second = write("The harbour opens at ten.")
    found = ask(client, "When does the harbour open?", min_versions={second["id"]: 2})
    assert [each["version"] for each in found["citations"]] == [2]
    third = write("The harbour opens at eleven.")
    chat = {"model": "ragsite/docs", "messages": [{"role": "user", "content": "When does the harbour open?"}]}
    for extra in ({"min_versions": {third["id"]: 3}}, {"consistency": "strong"}):
        said = client.post("/v1/chat/completions", json=chat | extra).json()["choices"][0]["message"]
        assert [each["version"] for each in said["citations"]] == [3]
    nothing = {"filters": {"source_uri": "elsewhere"}}
    assert ask(client, "When does the harbour open?", **nothing)["citations"] == []
    said = client.post("/v1/chat/completions", json=chat | nothing).json()["choices"][0]["message"]
    assert said["citations"] == []


def test_what_waits_is_found_without_reading_what_does_not(collection: Collection) -> None:
    if engine_for(connection).name != "postgres":
        pytest.skip("so many rows come by COPY there, which the wall refuses; each node plans for itself")
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO documents_document (id, tenant_id, collection_id, source_uri, title, metadata, version,"
            " live_version, content_sha256, media_type, state, created_at, updated_at, pending_since, error)"
            " SELECT gen_random_uuid(), %s, %s, n::text, '', '{}', 1, CASE WHEN n > 100 THEN 1 END, '', '', 'live',"
            " now(), now(), CASE WHEN n <= 50 THEN now() END, CASE WHEN n BETWEEN 51 AND 100 THEN '{}'::jsonb END"
            " FROM generate_series(1, 20000) n",
            [collection.tenant_id, collection.id],
        )
    with connections["owner"].cursor() as cursor:
        cursor.execute("ANALYZE documents_document")
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        sql = QUERIES["waiting"].format(holds="", limit=1_000)
        cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + sql, {"collections": [collection.id]})
        plan = json.dumps(cursor.fetchone()[0])
    removed = sum(int(rows) for rows in re.findall(r'"Rows Removed by (?:Filter|Index Recheck)": (\d+)', plan))
    assert '"Actual Rows": 100' in plan and removed < 1_000, plan
