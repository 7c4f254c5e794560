"""Reindexing: live documents are read and cut anew, old versions answer meanwhile, old citations stay verifiable."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx
import pytest
from django.db import connections
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.problems import Problem
from apps.documents import collections, db, embed, ledger, prepare, queries, reindex, remove, tasks
from apps.documents.accept import Accepted
from apps.documents.models import (
    Blob,
    Chunk,
    Collection,
    Document,
    DocumentVersion,
    IngestionJob,
    Reindex,
    StagedChunk,
    VersionRevision,
)
from apps.generation.verify import verify
from apps.retrieval.search import search
from apps.retrieval.types import Hit, SearchQuery
from tests.conftest import DATA, make_collection
from tests.support.asking import ask
from tests.support.papers import archive
from tests.support.processes import wait_for, worker
from tests.support.refusals import NOBODY, refused

from .test_ingest import embedded_texts, live_rows, paragraphs
from .test_races import assert_whole

Put = Callable[..., Accepted]
SMALL = {"chunking": {"max_tokens": 40}}


def start(collection: Collection, **values: Any) -> Reindex:
    with tenancy.scope(collection.tenant_id):
        return reindex.request(collection=collection, **values)


def change(collection: Collection, values: dict[str, Any]) -> Collection:
    with tenancy.scope(collection.tenant_id):
        return collections.change(collection=Collection.objects.get(id=collection.id), values=values)


def run_of(collection: Collection) -> dict[str, Any]:
    """The newest run of a collection, as the API shows it."""
    with tenancy.scope(collection.tenant_id):
        run = Reindex.objects.filter(collection=collection).order_by("-created_at")[0]
        return reindex.show(run)


def epoch(collection: Collection) -> int:
    with tenancy.scope(collection.tenant_id):
        return Collection.objects.get(id=collection.id).epoch


def is_open(collection: Collection) -> bool:
    with tenancy.scope(collection.tenant_id):
        return reindex.open_run(collection.id) is not None


def work_off(collection: Collection) -> dict[str, Any]:
    """Take every step in this process until no run of the collection is open; the last one."""
    deadline = time.monotonic() + 60
    while is_open(collection):
        assert time.monotonic() < deadline, run_of(collection)
        reindex.feed()
        prepare.drain()
        embed.drain()
    return run_of(collection)


def job_of(document_id: UUID) -> IngestionJob:
    """The newest reindex of a document."""
    return IngestionJob.objects.filter(document_id=document_id, kind="reindex").order_by("-created_at")[0]


def older_parser(collection: Collection, document_id: UUID, *, reads_now: str | None = None) -> None:
    """Let a document look as if an older parser had read it, whose successor reads `reads_now` in the same bytes."""
    with tenancy.scope(collection.tenant_id):
        DocumentVersion.objects.filter(document_id=document_id).update(parser="plain/0")
        if reads_now is not None:
            Blob.objects.filter(document_id=document_id).update(data=reads_now.encode())


def layout(collection: Collection, document_id: UUID) -> list[tuple[Any, ...]]:
    """The live chunks of a document in reading order, proved against its text."""
    with tenancy.scope(collection.tenant_id):
        document = Document.objects.get(id=document_id)
        version = DocumentVersion.objects.get(document_id=document_id, version=document.live_version)
        assert version.revision == document.live_revision
        rows, _ = queries.chunks(document_id, None, after=0, limit=10_000)
        live = Chunk.objects.filter(document_id=document_id, retired_in_version=None).values_list("chunk_id", flat=True)
        assert sorted(live) == sorted(row["chunk_id"] for row in rows)
        for row in rows:
            assert version.text[row["start"] : row["end"]] == row["text"]
        assert not StagedChunk.objects.filter(document_id=document_id).exists()
        assert not VersionRevision.objects.filter(document_id=document_id, replaced_at=None).exists()
    return [(row["text"], row["start"], row["end"], tuple(row["heading_path"])) for row in rows]


def fresh_layout(tenant: Tenant, ingest: Put, text: str, **values: Any) -> list[tuple[Any, ...]]:
    """The same of a document that is new in a collection of its own."""
    collection = make_collection(tenant, slug=f"fresh-{time.monotonic_ns()}", **values)
    return layout(collection, ingest(collection, text).document.id)


def citation(hit: Hit) -> dict[str, Any]:
    quote = hit.text[:20]
    return {
        "marker": 1,
        "document_id": str(hit.document_id),
        "version": hit.version,
        "revision": hit.revision,
        "start": hit.start,
        "end": hit.start + len(quote),
        "quote": quote,
        "sha256": hashlib.sha256(quote.encode()).hexdigest(),
    }


def verified(collection: Collection, citations: list[dict[str, Any]]) -> bool:
    with tenancy.scope(collection.tenant_id):
        return all(judged["verified"] for judged in verify(citations))


def test_changed_settings_cut_everything_anew_while_searches_answer_from_one_revision(
    tenant: Tenant, collection: Collection, ingest: Put
) -> None:
    texts = {f"d{number}": "\n\n".join(paragraphs(10, seed=f"re{number}")) for number in range(40)}
    ids = {name: ingest(collection, text, source_uri=name).document.id for name, text in texts.items()}
    query = SearchQuery(" ".join(paragraphs(2, seed="re7")), k=60)
    old = [citation(hit) for hit in search(tenant_id=tenant.id, query=query).hits]
    stop, problems, searches = threading.Event(), list[str](), [0]

    def read() -> None:
        try:
            while not stop.is_set():
                found = search(tenant_id=tenant.id, query=query).hits
                searches[0] += 1
                seen: dict[UUID, int] = {}
                for hit in found:
                    if seen.setdefault(hit.document_id, hit.revision) != hit.revision:
                        problems.append(f"two revisions of {hit.document_id} in one answer")
                if len(seen) < 5:
                    problems.append(f"only {len(seen)} documents answer")
                if not verified(collection, [citation(hit) for hit in found]):
                    problems.append("a hit that was found does not verify")
        finally:
            connections.close_all()

    change(collection, SMALL)
    assert run_of(collection)["trigger"] == "settings"
    with ThreadPoolExecutor(1) as pool, worker(DATA, "prepare", "embed", "default", name="recut"):
        reading = pool.submit(read)

        def ended() -> bool:
            tasks.sweep()
            return not is_open(collection)

        try:
            wait_for(ended, seconds=120, what="the run to end", every=0.2)
        finally:
            stop.set()
        reading.result()
    assert problems == [] and searches[0] > 5
    told = run_of(collection)
    assert (told["state"], told["queued"], told["done"], told["failed"], told["open"]) == ("done", 40, 40, 0, 0)
    assert_whole(collection, documents=40)
    wanted = fresh_layout(tenant, ingest, texts["d7"], **SMALL)
    assert layout(collection, ids["d7"]) == wanted and len(wanted) == 10
    assert verified(collection, old) and {cited["revision"] for cited in old} == {0}
    with tenancy.scope(tenant.id):
        assert set(Document.objects.values_list("live_revision", flat=True)) >= {1}
        kept = VersionRevision.objects.filter(document_id=ids["d7"])
        assert [(each.revision, each.text) for each in kept] == [(0, None)], "a text that is the same is kept once"


def test_a_newer_parsers_text_replaces_the_old_one_whose_citations_stay_verifiable(
    client: httpx.Client, collection: Collection, ingest: Put
) -> None:
    old, new = (
        "The okapi eats l e a v e s.\n\nIt lives in forests.",
        "Title\n\nThe okapi eats leaves. It lives in forests.",
    )
    document_id = ingest(collection, old).document.id
    answer = ask(client, "What does the okapi eat?")
    cited = answer["citations"][0]
    assert cited["revision"] == 0
    older_parser(collection, document_id, reads_now=new)
    start(collection, trigger="parser")
    assert work_off(collection)["done"] == 1

    hit = search(tenant_id=collection.tenant_id, query=SearchQuery("okapi leaves")).hits[0]
    assert (hit.version, hit.revision) == (1, 1) and "leaves" in hit.text
    assert client.get(f"/api/v1/answers/{answer['id']}/verify").json()["verified"]
    again = ask(client, "What does the okapi eat?")
    assert again["citations"][0]["revision"] == 1
    assert client.get(f"/api/v1/answers/{again['id']}/verify").json()["verified"]

    path = f"/api/v1/documents/{document_id}"
    text = f"{path}/versions/1/text"
    assert client.get(text).json() | {"sha256": ""} == {
        "text": new,
        "revision": 1,
        "start": 0,
        "end": len(new),
        "sha256": "",
    }
    assert client.get(text, params={"revision": 0}).json()["text"] == old
    assert client.get(text, params={"revision": 0, "start": 4, "end": 9}).json()["text"] == "okapi"
    span = {"start": cited["start"], "end": cited["end"]}
    found = client.get(text, params=span | {"sha256": cited["sha256"]}).json()
    assert (found["text"], found["revision"], found["sha256"]) == (cited["quote"], 0, cited["sha256"])
    there = {"start": 0, "end": 5, "sha256": hashlib.sha256(b"Title").hexdigest().upper()}
    assert client.get(text, params=there).json()["revision"] == 1
    for wrong, status in (
        ({"revision": 2}, 404),
        (span | {"sha256": "0" * 64}, 404),
        (span | {"sha256": "zz"}, 400),
        (span | {"sha256": cited["sha256"], "revision": 0}, 400),
    ):
        assert client.get(text, params=wrong).status_code == status
    version = client.get(f"{path}/versions/1").json()
    assert (version["revision"], version["characters"]) == (1, len(new)) and version["parser"] != "plain/0"
    assert client.get(path).json()["live_revision"] == 1
    assert {row["revision"] for row in client.get(f"{path}/chunks").json()["results"]} == {1}


def test_three_revisions_each_keep_what_was_cited_of_them(collection: Collection, ingest: Put) -> None:
    """Parser, settings, parser: the text changes, stays, changes."""
    document_id = ingest(collection, "First reading of it. " * 20).document.id
    cited = []
    for step, reads_now in enumerate((None, "Second reading of it. " * 20, "", "Third reading of it. " * 20)):
        if reads_now:
            older_parser(collection, document_id, reads_now=reads_now)
            start(collection)
        elif reads_now is not None:
            change(collection, SMALL)
        if step:
            work_off(collection)
        hits = search(tenant_id=collection.tenant_id, query=SearchQuery("reading")).hits
        assert {hit.revision for hit in hits} == {step}
        cited += [citation(hit) for hit in hits]
        assert verified(collection, cited), f"after step {step}"
    with tenancy.scope(collection.tenant_id):
        kept = VersionRevision.objects.filter(document_id=document_id).order_by("revision")
        assert [each.text is None for each in kept] == [False, True, False]
    forged = cited[0] | {"revision": 3}
    assert not verified(collection, [forged]) and not verified(collection, [cited[0] | {"revision": 9}])
    assert verified(collection, [{name: value for name, value in cited[0].items() if name != "revision"}])


def test_what_comes_out_the_same_is_only_written_down(collection: Collection, ingest: Put) -> None:
    repeated = "The same line again.\n\n" * 30 + "\n\n".join(paragraphs(20, seed="same"))
    documents = [ingest(collection, f"{repeated} {name}", source_uri=name).document.id for name in "abc"]
    for document_id in documents:
        older_parser(collection, document_id)
    before, texts, rows = epoch(collection), embedded_texts(), live_rows(collection)
    layouts = [layout(collection, document_id) for document_id in documents]
    start(collection)
    told = work_off(collection)
    assert (told["queued"], told["unchanged"], told["done"]) == (3, 3, 0)
    assert (epoch(collection), embedded_texts(), live_rows(collection)) == (before, texts, rows)
    assert [layout(collection, document_id) for document_id in documents] == layouts
    with tenancy.scope(collection.tenant_id):
        stored = DocumentVersion.objects.filter(document_id__in=documents)
        assert {(version.parser, version.revision) for version in stored} == {("plain/2", 0)}
        assert not VersionRevision.objects.exists()
        assert {job_of(document_id).outcome for document_id in documents} == {"unchanged"}


def test_chunks_that_survive_a_reindex_keep_their_rows_and_are_not_embedded_again(
    collection: Collection, ingest: Put
) -> None:
    parts = paragraphs(60, seed="keep")
    document_id = ingest(collection, "\n\n".join(parts)).document.id
    with tenancy.scope(collection.tenant_id):
        before = set(Chunk.objects.values_list("chunk_id", flat=True))
    parts[3] = "This is what the newer parser makes of the fourth paragraph."
    older_parser(collection, document_id, reads_now="\n\n".join(parts))
    embedded = embedded_texts()
    start(collection)
    work_off(collection)
    with tenancy.scope(collection.tenant_id):
        after = set(Chunk.objects.filter(retired_in_version=None).values_list("chunk_id", flat=True))
    assert 1 <= len(after - before) == embedded_texts() - embedded <= 4
    assert len(after & before) > 10
    assert_whole(collection, documents=1)


def test_run_twice_there_is_nothing_to_do_unless_everything_is_asked_for(collection: Collection, ingest: Put) -> None:
    for name in "ab":
        ingest(collection, "\n\n".join(paragraphs(5, seed=name)), source_uri=name)
    change(collection, SMALL)
    assert work_off(collection)["done"] == 2
    start(collection)
    told = work_off(collection)
    assert (told["looked_at"], told["queued"], told["state"]) == (2, 0, "done")
    start(collection, everything=True)
    told = work_off(collection)
    assert (told["queued"], told["unchanged"]) == (2, 2)


def test_the_document_goes_on_as_it_was_when_a_reindex_fails(collection: Collection, ingest: Put) -> None:
    document_id = ingest(collection, "Sound as a bell.").document.id
    older_parser(collection, document_id, reads_now="")
    with tenancy.scope(collection.tenant_id):
        Document.objects.filter(id=document_id).update(state="stale")
        before = Document.objects.filter(id=document_id).values().get()
    start(collection)
    told = work_off(collection)
    assert (told["failed"], told["done"], told["state"]) == (1, 0, "done")
    with tenancy.scope(collection.tenant_id):
        assert Document.objects.filter(id=document_id).values().get() == before
        job = job_of(document_id)
        assert (job.state, job.error["code"]) == ("dead", "empty")
        assert DocumentVersion.objects.get(document_id=document_id).error is None
        Blob.objects.filter(document_id=document_id).update(data=b"Sound as a whistle.")
        assert ledger.retry(job_id=job.id)
        assert Document.objects.filter(id=document_id).values().get() == before
    prepare.drain()
    embed.drain()
    assert [text for text, *_ in layout(collection, document_id)] == ["Sound as a whistle."]


def test_a_cancelled_reindex_leaves_the_document_as_it_was(collection: Collection, ingest: Put) -> None:
    document_id = ingest(collection, "\n\n".join(paragraphs(10, seed="cancel"))).document.id
    before = layout(collection, document_id)
    change(collection, SMALL)
    reindex.feed()
    prepare.drain()
    with tenancy.scope(collection.tenant_id):
        assert StagedChunk.objects.filter(document_id=document_id).exists()
        assert ledger.cancel(job_id=job_of(document_id).id)
        document = Document.objects.get(id=document_id)
        assert (document.state, document.error, document.live_revision) == ("live", None, 0)
    assert layout(collection, document_id) == before
    assert work_off(collection)["skipped"] == 1
    start(collection)
    reindex.feed()
    with tenancy.scope(collection.tenant_id):
        cancelled = IngestionJob.objects.get(document_id=document_id, state="cancelled")
        assert not ledger.retry(job_id=cancelled.id), "another reindex of the document is open"
    assert work_off(collection)["done"] == 1


def other_text(number: int) -> str:
    return "\n\n".join(paragraphs(10, seed="base")[number:] + paragraphs(3, seed=f"edit{number}"))


@pytest.mark.parametrize("first", ["reindex", "version"])
@pytest.mark.parametrize("published_first", ["reindex", "version"])
def test_a_new_version_and_a_reindex_in_any_order_lose_and_double_nothing(
    tenant: Tenant, collection: Collection, ingest: Put, put: Put, first: str, published_first: str
) -> None:
    text = other_text(0)
    document_id = ingest(collection, text).document.id
    newer = other_text(2)

    def stage_reindex() -> UUID:
        change(collection, SMALL)
        reindex.feed()
        with tenancy.scope(tenant.id):
            return job_of(document_id).id

    stage: dict[str, Callable[[], UUID]] = {
        "reindex": stage_reindex,
        "version": lambda: put(collection, newer).job.id,  # type: ignore[union-attr]
    }
    order = [first, "version" if first == "reindex" else "reindex"]
    jobs = {}
    for name in order:
        jobs[name] = stage[name]()
        prepare.drain(job_id=jobs[name])
    embed.drain(job_id=jobs[published_first])
    work_off(collection)
    prepare.drain()
    embed.drain()
    assert layout(collection, document_id) == fresh_layout(tenant, ingest, newer, **SMALL)
    assert_whole(collection, documents=1)
    with tenancy.scope(tenant.id):
        document = Document.objects.get(id=document_id)
        assert (document.live_version, document.state) == (2, "live")


def test_the_same_content_under_a_higher_number_is_reindexed_once_for_all_its_numbers(
    tenant: Tenant, collection: Collection, ingest: Put
) -> None:
    text = "\n\n".join(paragraphs(10, seed="numbers"))
    document_id = ingest(collection, text, version=3).document.id
    ingest(collection, text, version=5)
    cited = citation(search(tenant_id=tenant.id, query=SearchQuery("word")).hits[0])
    change(collection, SMALL)
    reindex.feed()
    prepare.drain()
    ingest(collection, text, version=8)  # while the reindex of it is staged
    assert work_off(collection)["done"] == 1
    with tenancy.scope(tenant.id):
        document = Document.objects.get(id=document_id)
        assert (document.version, document.live_version, document.live_revision) == (8, 8, 1)
        stored = DocumentVersion.objects.filter(document_id=document_id).order_by("version")
        assert [(each.version, each.revision) for each in stored] == [(3, 1), (5, 1), (8, 1)]
        assert len({tuple(each.chunk_ids) for each in stored}) == 1
        assert VersionRevision.objects.get(document_id=document_id).version == 3
    assert cited["version"] == 5 and verified(collection, [cited])
    assert layout(collection, document_id) == fresh_layout(tenant, ingest, text, **SMALL)


def test_an_archives_pages_are_compared_and_put_right(collection: Collection, ingest: Put) -> None:
    document_id = ingest(collection, archive(), media_type="application/zip", source_uri="papers.zip").document.id
    stored = DocumentVersion.objects.filter(document_id=document_id)
    with tenancy.scope(collection.tenant_id):
        before = stored.get()
        stored.update(parser="archive/0")
    start(collection)
    assert work_off(collection)["unchanged"] == 1
    with tenancy.scope(collection.tenant_id):
        assert stored.get().revision == 0 and stored.get().page_numbers == before.page_numbers
        wrong = [1] * len(before.page_starts)
        stored.update(parser="archive/0", page_numbers=wrong)
    start(collection)
    assert work_off(collection)["done"] == 1
    with tenancy.scope(collection.tenant_id):
        after = stored.get()
        assert (after.revision, after.page_starts) == (1, before.page_starts)
        assert after.page_numbers == before.page_numbers and None in after.page_numbers
        assert VersionRevision.objects.get(document_id=document_id).page_numbers == wrong
    ingest(collection, archive(), media_type="application/zip", source_uri="papers.zip", version=9)  # carries them on
    with tenancy.scope(collection.tenant_id):
        assert stored.get(version=9).page_numbers == before.page_numbers


def test_what_was_staged_before_the_settings_changed_is_found_by_a_second_walk(
    collection: Collection, ingest: Put, put: Put
) -> None:
    ingest(collection, "\n\n".join(paragraphs(10, seed="early")), source_uri="early")
    late = put(collection, "\n\n".join(paragraphs(10, seed="late")), source_uri="late")
    prepare.drain(job_id=late.job.id)  # cut as it was set before
    change(collection, SMALL)
    reindex.feed()
    with tenancy.scope(collection.tenant_id):
        job = IngestionJob.objects.get(kind="reindex")
    embed.drain(job_id=late.job.id)  # goes live after the walk has passed
    prepare.drain(job_id=job.id)
    embed.drain(job_id=job.id)
    assert work_off(collection)["done"] == 2
    assert_whole(collection, documents=2)
    with tenancy.scope(collection.tenant_id):
        assert {version.chunker.split(":")[1] for version in DocumentVersion.objects.all()} == {"40"}


def test_settings_that_change_during_a_run_are_followed_by_another(collection: Collection, ingest: Put) -> None:
    ingest(collection, "\n\n".join(paragraphs(10, seed="twice")))
    change(collection, SMALL)
    reindex.feed()
    prepare.drain()
    change(collection, {"chunking": {"max_tokens": 60}})
    work_off(collection)
    with tenancy.scope(collection.tenant_id):
        assert Reindex.objects.filter(collection=collection, state="done").count() == 2
        stored = Collection.objects.get(id=collection.id)
        assert stored.indexed_with == reindex.fingerprint(stored)
        assert DocumentVersion.objects.get().chunker == prepare.chunker_fingerprint(stored)


def test_pause_stops_the_feeder_and_resume_goes_on_where_it_stopped(collection: Collection, ingest: Put) -> None:
    for number in range(12):
        ingest(collection, f"Document {number}. " * 30, source_uri=f"d{number}")
    change(collection, SMALL)
    assert reindex.feed(window=5) == 5 and reindex.feed(window=5) == 0
    run_id = run_of(collection)["id"]
    with tenancy.scope(collection.tenant_id):
        assert reindex.pause(run_id=run_id) and not reindex.pause(run_id=run_id)
    prepare.drain()
    embed.drain()
    assert reindex.feed() == 0
    told = run_of(collection)
    assert (told["state"], told["looked_at"], told["done"], told["open"]) == ("paused", 5, 5, 0)
    with tenancy.scope(collection.tenant_id):
        assert Document.objects.filter(live_revision=1).count() == 5
        assert reindex.resume(run_id=run_id) and not reindex.resume(run_id=run_id)
    told = work_off(collection)
    assert (told["id"], told["looked_at"], told["done"]) == (run_id, 12, 12)
    assert_whole(collection, documents=12)


def test_the_ledger_keeps_the_jobs_of_an_open_run_for_its_counts(collection: Collection, ingest: Put) -> None:
    ingest(collection, "A text.")
    run_id = start(collection, everything=True).id
    reindex.feed()
    prepare.drain()
    with tenancy.scope(collection.tenant_id):
        reindex.pause(run_id=run_id)
        IngestionJob.objects.update(finished_at="2020-01-01T00:00:00Z")
    ledger.forget()
    assert run_of(collection)["unchanged"] == 1
    with tenancy.scope(collection.tenant_id):
        assert [job.kind for job in IngestionJob.objects.all()] == ["reindex"]
        reindex.cancel(run_id=run_id)
    ledger.forget()
    assert run_of(collection)["unchanged"] == 1
    with tenancy.scope(collection.tenant_id):
        assert not IngestionJob.objects.exists()


def test_cancel_ends_open_jobs_and_nothing_starts_by_itself_again(collection: Collection, ingest: Put) -> None:
    for number in range(6):
        ingest(collection, f"Document {number}. " * 30, source_uri=f"d{number}")
    change(collection, SMALL)
    reindex.feed(window=4)
    with tenancy.scope(collection.tenant_id):
        first = IngestionJob.objects.filter(kind="reindex")[0].id
    prepare.drain(job_id=first)
    run_id = run_of(collection)["id"]
    with tenancy.scope(collection.tenant_id):
        assert reindex.cancel(run_id=run_id) and not reindex.cancel(run_id=run_id)
        assert not StagedChunk.objects.exists() and not VersionRevision.objects.exists()
        assert not reindex.resume(run_id=run_id)
    prepare.drain()
    embed.drain()
    reindex.start_outdated()
    told = run_of(collection)
    assert (told["id"], told["state"], told["skipped"], told["open"]) == (run_id, "cancelled", 4, 0)
    start(collection)
    assert work_off(collection)["done"] == 6


def test_a_document_that_is_deleted_or_erased_meanwhile_does_not_come_back(collection: Collection, ingest: Put) -> None:
    ids = [ingest(collection, f"Secret {n}. " * 40, source_uri=f"d{n}").document.id for n in range(4)]
    change(collection, SMALL)
    work_off(collection)  # so that there are past revisions
    change(collection, {"chunking": {"max_tokens": 60}})
    reindex.feed()
    prepare.drain()
    for document_id, erase in ((ids[0], False), (ids[1], True)):
        remove.delete(tenant_id=collection.tenant_id, document_id=document_id, erase=erase)
    told = work_off(collection)
    assert told["done"] == 2
    hits = search(tenant_id=collection.tenant_id, query=SearchQuery("secret", k=50)).hits
    assert {hit.document_id for hit in hits} == set(ids[2:])
    with tenancy.scope(collection.tenant_id):
        assert not VersionRevision.objects.filter(document_id=ids[1]).exists()
        assert VersionRevision.objects.filter(document_id=ids[0], replaced_at=None).count() == 0
        collections.remove(collection=Collection.objects.select_related("space").get(id=collection.id))
        assert not VersionRevision.objects.exists() and not Reindex.objects.exists()


def test_feeders_at_once_open_each_job_once(tenant: Tenant, collection: Collection, put: Put) -> None:
    count = 60
    for number in range(count):
        put(collection, f"Text {number}. " * 20, source_uri=f"d{number}")
    prepare.drain()
    embed.drain()
    change(collection, SMALL)

    def step(_: int) -> int:
        try:
            return sum(reindex.feed(window=7 * turn) for turn in range(1, 12))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        opened = sum(pool.map(step, range(4)))
    assert opened == count
    with tenancy.scope(tenant.id):
        jobs = list(IngestionJob.objects.filter(kind="reindex").values_list("document_id", flat=True))
    assert len(jobs) == len(set(jobs)) == count
    assert work_off(collection)["done"] == count
    assert_whole(collection, documents=count)


def test_kill_9_in_the_middle_of_a_reindex_loses_and_doubles_nothing(
    tenant: Tenant, collection: Collection, put: Put
) -> None:
    count = 120
    for number in range(count):
        put(collection, "\n\n".join(paragraphs(8, seed=f"killed{number}")), source_uri=f"d{number}")
    prepare.drain()
    embed.drain()
    change(collection, SMALL)

    def ended() -> int:
        tasks.sweep()
        with tenancy.scope(tenant.id):
            return IngestionJob.objects.filter(kind="reindex", state="done").count()

    def launch(name: str) -> Any:
        return worker(DATA, "prepare", "embed", "default", name=name, JOB_LEASE_SECONDS="2")

    running = launch("cut0")
    try:
        for kill in range(1, 3):
            enough = min(count, ended() + 20)
            wait_for(lambda: ended() >= enough, seconds=60, what="some progress")  # noqa: B023
            running.kill()
            running = launch(f"cut{kill}")
        wait_for(lambda: ended() == count and not is_open(collection), seconds=120, what="all", every=0.5)
    finally:
        running.kill()
    assert_whole(collection, documents=count)
    with tenancy.scope(tenant.id):
        assert set(Document.objects.values_list("live_revision", flat=True)) == {1}
        assert not VersionRevision.objects.filter(replaced_at=None).exists()


def test_a_slot_is_one_run_and_another_run_is_refused_while_one_is_open(collection: Collection, ingest: Put) -> None:
    ingest(collection, "A text.")
    slot = timezone.now()
    run = start(collection, trigger="schedule", slot=slot, everything=True)
    assert start(collection, trigger="schedule", slot=slot, everything=True).id == run.id
    with pytest.raises(Problem) as problem:
        start(collection)
    assert (problem.value.status_code, problem.value.code) == (409, "already_running")
    assert problem.value.extra == {"reindex": str(run.id)}
    work_off(collection)
    assert start(collection, trigger="schedule", slot=slot).id == run.id, "a tick that comes late is told what it was"
    assert not is_open(collection)


def test_the_api_starts_watches_pauses_and_cancels_runs(
    client: httpx.Client, collection: Collection, ingest: Put
) -> None:
    for number in range(3):
        ingest(collection, f"Document {number}. " * 30, source_uri=f"d{number}")
    runs = "/api/v1/reindexes"
    refused(client.post(runs, json={"collection": "nowhere"}), 422, "unknown_collection")
    refused(client.post(runs, json={"collection": "docs", "everything": "yes"}), 400, pointer="/everything")
    made = client.post(runs, json={"collection": "docs", "everything": True})
    assert made.status_code == 202
    run = made.json()
    assert (run["collection"], run["trigger"], run["state"], run["documents"]) == ("docs", "manual", "running", 3)
    there = refused(client.post(runs, json={"collection": "docs"}), 409, "already_running")
    assert there["reindex"] == run["id"]
    assert client.get("/api/v1/collections/docs").json()["reindex"] == {"id": run["id"], "state": "running"}

    path = f"{runs}/{run['id']}"
    assert client.post(f"{path}/pause").json()["state"] == "paused"
    assert reindex.feed() == 0
    refused(client.post(f"{path}/pause"), 409, "wrong_state")
    assert client.post(f"{path}/resume").json()["state"] == "running"
    reindex.feed()
    told = client.get(path).json()
    assert (told["looked_at"], told["queued"], told["open"], told["eta_seconds"]) == (3, 3, 3, None)
    prepare.drain()
    told = client.get(path).json()
    assert (told["open"], told["unchanged"], told["eta_seconds"]) == (0, 3, 0)
    job = client.get("/api/v1/jobs").json()["results"][0]
    assert (job["kind"], job["outcome"], job["priority"]) == ("reindex", "unchanged", "low")
    assert client.post(f"{path}/cancel").json()["state"] == "cancelled"
    for verb in ("pause", "resume", "cancel"):
        refused(client.post(f"{path}/{verb}"), 409, "wrong_state")
        refused(client.post(f"{runs}/{NOBODY}/{verb}"), 404, "not_found")
    refused(client.get(f"{runs}/{NOBODY}"), 404, "not_found")

    changed = client.patch("/api/v1/collections/docs", json=SMALL).json()
    assert changed["reindex"]["state"] == "running"
    listed = client.get(runs, params={"collection": "docs"}).json()["results"]
    assert [(each["trigger"], each["state"]) for each in listed] == [("settings", "running"), ("manual", "cancelled")]
    assert len(client.get(runs, params={"state": "running"}).json()["results"]) == 1
    assert client.get(runs, params={"collection": "nowhere"}).json()["results"] == []
    refused(client.get(runs, params={"state": "odd"}), 400, pointer="/state")
    assert work_off(collection)["done"] == 3
    assert client.get("/api/v1/collections/docs").json()["reindex"] is None


def test_todays_fingerprints_start_runs_where_others_have_read_or_cut(
    tenant: Tenant, collection: Collection, ingest: Put
) -> None:
    ingest(collection, "A text.")
    empty = make_collection(tenant, slug="empty")
    with tenancy.scope(tenant.id):
        Collection.objects.update(indexed_with="older")
    reindex.start_outdated()
    reindex.start_outdated()
    with tenancy.scope(tenant.id):
        assert [(run.collection_id, run.trigger) for run in Reindex.objects.all()] == [(collection.id, "parser")]
        assert Collection.objects.get(id=empty.id).indexed_with == reindex.fingerprint(empty)
    work_off(collection)
    with tenancy.scope(tenant.id):
        assert Collection.objects.get(id=collection.id).indexed_with == reindex.fingerprint(collection)


def test_the_new_tables_are_behind_the_wall(collection: Collection, other_tenant: Tenant, ingest: Put) -> None:
    ingest(collection, "\n\n".join(paragraphs(10, seed="wall")))
    change(collection, SMALL)
    run_id = run_of(collection)["id"]
    work_off(collection)
    with tenancy.scope(collection.tenant_id):
        assert VersionRevision.objects.count() == 1
    with tenancy.scope(other_tenant.id):
        assert not VersionRevision.objects.exists() and not Reindex.objects.exists()
        assert not reindex.pause(run_id=run_id) and not reindex.cancel(run_id=run_id)


@pytest.fixture(autouse=True)
def _close(database: None) -> Iterator[None]:
    """What one test leaves open would be fed by the next."""
    yield
    for tenant_id, _, run_id in db.rows("reindex_running"):
        with tenancy.scope(tenant_id):
            reindex.cancel(run_id=run_id)
