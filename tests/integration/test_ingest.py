"""A document's life in the database: accepted, prepared, embedded, published; invariants I1, I2, I4, I5, I9."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from django.db import connection

from apps.access import tenancy
from apps.access.problems import Problem
from apps.documents import embed, ledger, prepare, remove
from apps.documents.accept import Accepted
from apps.documents.edit import edit
from apps.documents.models import Chunk, Collection, Document, DocumentVersion, IngestionJob, StagedChunk
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery
from tests.support.processes import wait_for

Put = Callable[..., Accepted]


def paragraphs(count: int, *, seed: str = "") -> list[str]:
    """Distinct paragraphs of about thirty words."""
    return [
        f"Paragraph {number}{seed}: "
        + " ".join(f"word{hashlib.md5(f'{number}{seed}{i}'.encode()).hexdigest()[:6]}" for i in range(30))
        + "."
        for number in range(count)
    ]


def embedded_texts() -> int:
    """How many texts have been given to the fake embedder so far, in any process."""
    path = Path(os.environ["RAGSITE_FAKE_EMBED_LOG"])
    return sum(json.loads(line)["n"] for line in path.read_text().splitlines()) if path.exists() else 0


def times_embedded(text: str) -> int:
    """How often this very text has been given to it. Others may embed meanwhile: a web server that warms up."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    lines = Path(os.environ["RAGSITE_FAKE_EMBED_LOG"]).read_text().splitlines()
    return sum(json.loads(line)["sha256"].count(digest) for line in lines)


def live_rows(collection: Collection) -> tuple[int, int]:
    """(live chunks, live vectors) of a collection."""
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        chunks = Chunk.objects.filter(collection=collection, retired_in_version=None).count()
        cursor.execute(
            f"SELECT count(*) FROM {collection.space.table} WHERE live AND collection_id = %s",
            [collection.id],
        )
        return chunks, cursor.fetchone()[0]


def test_a_text_becomes_live_with_exact_offsets(collection: Collection, ingest: Put) -> None:
    accepted = ingest(collection, "\n\n".join(paragraphs(40)), title="Forty")
    with tenancy.scope(collection.tenant_id):
        document = Document.objects.get(id=accepted.document.id)
        assert (document.state, document.version, document.live_version) == ("live", 1, 1)
        version = DocumentVersion.objects.get(document_id=document.id, version=1)
        chunks = {chunk.chunk_id: chunk for chunk in Chunk.objects.filter(document=document)}
        assert len(chunks) == len(version.chunk_ids) > 5
        for chunk_id, start, end in zip(version.chunk_ids, version.starts, version.ends, strict=True):
            assert version.text[start:end] == chunks[chunk_id].text
            assert hashlib.sha256(chunks[chunk_id].text.encode()).digest() == bytes(chunks[chunk_id].sha256)
        assert StagedChunk.objects.filter(document=document).count() == 0
        job = IngestionJob.objects.get(id=accepted.job.id)
        assert (job.state, job.outcome, job.attempts) == ("done", "published", 1)
        stored = Collection.objects.get(id=collection.id)
        assert (stored.documents, stored.chunks, stored.epoch) == (1, len(chunks), 1)
    assert live_rows(collection) == (len(chunks), len(chunks))


def test_resent_content_embeds_nothing_and_changes_nothing(collection: Collection, ingest: Put) -> None:
    text = "\n\n".join(paragraphs(10, seed="resent"))
    ingest(collection, text)
    before = embedded_texts()
    again = ingest(collection, text)
    assert again.unchanged and again.document.version == 1
    assert embedded_texts() == before


def test_same_content_with_a_higher_version_raises_the_number(collection: Collection, ingest: Put) -> None:
    ingest(collection, "alpha text", version=5)
    raised = ingest(collection, "alpha text", version=7)
    assert raised.unchanged and (raised.document.version, raised.document.live_version) == (7, 7)
    with pytest.raises(Problem) as stale:
        ingest(collection, "beta text", version=6)
    assert stale.value.status_code == 409 and stale.value.extra == {"current_version": 7}
    hit = search(tenant_id=collection.tenant_id, query=SearchQuery("alpha text")).hits[0]
    assert (hit.version, hit.text, hit.fresh) == (7, "alpha text", True)


def test_same_content_sent_again_while_pending_goes_live_under_the_higher_number(
    collection: Collection, put: Put
) -> None:
    first = put(collection, "waiting text", version=5)
    assert put(collection, "waiting text", version=7).unchanged
    prepare.drain(job_id=first.job.id)
    embed.drain(job_id=first.job.id)
    with tenancy.scope(collection.tenant_id):
        document = Document.objects.get(id=first.document.id)
        assert (document.state, document.version, document.live_version) == ("live", 7, 7)
        assert DocumentVersion.objects.get(document_id=document.id, version=7).text == "waiting text"


def title_of(accepted: Accepted) -> str:
    with tenancy.scope(accepted.document.tenant_id):
        return Document.objects.get(id=accepted.document.id).title


def test_a_title_is_the_live_contents_own_unless_one_is_given(collection: Collection, put: Put, ingest: Put) -> None:
    markdown = {"source_uri": "guide", "media_type": "text/markdown"}
    guide = ingest(collection, "# Old\n\nText.", **markdown)
    assert title_of(guide) == "Old"
    newer = put(collection, "# New\n\nText.", **markdown)
    assert title_of(guide) == "Old"  # as long as the old content answers
    prepare.drain(job_id=newer.job.id)
    embed.drain(job_id=newer.job.id)
    assert title_of(guide) == "New"
    assert put(collection, "# New\n\nText.", **markdown, title="Given").unchanged
    assert title_of(guide) == "Given"
    ingest(collection, "# Newer\n\nText.", **markdown)
    assert title_of(guide) == "Given"
    assert put(collection, "# Newer\n\nText.", **markdown, title="").unchanged
    assert title_of(guide) == "Newer"
    with tenancy.scope(collection.tenant_id):
        edit(guide.document.id, {"title": "By hand"})
        edit(guide.document.id, {"metadata": {"kept": True}})
    assert title_of(guide) == "By hand"
    ingest(collection, "No heading.", **markdown, title="")
    assert title_of(guide) == ""


def test_the_title_of_content_that_is_published_late_goes_with_it(collection: Collection, put: Put) -> None:
    late = put(collection, "# Head\n\nText.", source_uri="guide", media_type="text/markdown")
    prepare.drain(job_id=late.job.id)
    last = put(collection, "Without a head.", source_uri="guide", title="")
    embed.drain(job_id=late.job.id)
    assert title_of(last) == "Head"
    prepare.drain(job_id=last.job.id)
    embed.drain(job_id=last.job.id)
    assert title_of(last) == ""


def test_editing_one_paragraph_embeds_only_what_it_touches(collection: Collection, ingest: Put) -> None:
    parts = paragraphs(500, seed="edit")
    ingest(collection, "\n\n".join(parts))
    chunks, _ = live_rows(collection)
    assert chunks >= 100
    before = embedded_texts()
    with tenancy.scope(collection.tenant_id):
        kept = set(Chunk.objects.values_list("chunk_id", flat=True))
    parts[3] = "This paragraph was rewritten from top to bottom and says something else entirely now."
    ingest(collection, "\n\n".join(parts))
    embedded = embedded_texts() - before
    assert 1 <= embedded <= 5
    with tenancy.scope(collection.tenant_id):
        after = set(Chunk.objects.filter(retired_in_version=None).values_list("chunk_id", flat=True))
        version = DocumentVersion.objects.get(version=2)
    assert len(after - kept) == embedded, "a chunk that survives keeps its row"
    assert set(version.chunk_ids) == after
    assert live_rows(collection) == (len(after), len(after))


def test_a_paragraph_that_comes_back_is_a_new_row_but_is_not_embedded_again(
    collection: Collection, ingest: Put
) -> None:
    ingest(collection, "The first wording of it.")
    ingest(collection, "The second wording of it.")
    before = embedded_texts()
    ingest(collection, "The first wording of it.")
    assert embedded_texts() == before
    with tenancy.scope(collection.tenant_id):
        rows = Chunk.objects.order_by("live_from_version").values_list("live_from_version", "retired_in_version")
        assert list(rows) == [(1, 2), (2, 3), (3, None)]


def test_the_same_text_in_two_documents_of_a_tenant_is_embedded_once(collection: Collection, ingest: Put) -> None:
    ingest(collection, "A boilerplate notice that many pages carry.", source_uri="a")
    before = embedded_texts()
    ingest(collection, "A boilerplate notice that many pages carry.", source_uri="b")
    assert embedded_texts() == before
    assert live_rows(collection) == (2, 2)


def test_a_failed_update_keeps_the_old_version_answering(collection: Collection, ingest: Put) -> None:
    good = ingest(collection, "The old content answers questions.", source_uri="page")
    bad = ingest(collection, b"%PDF-1.4 this is no pdf at all", media_type="application/pdf", source_uri="page")
    with tenancy.scope(collection.tenant_id):
        document = Document.objects.get(id=good.document.id)
        job = IngestionJob.objects.get(id=bad.job.id)
        assert (document.state, document.version, document.live_version) == ("stale", 2, 1)
        assert job.state == "dead" and job.error["code"] == document.error["code"] == "corrupt"
    assert search(tenant_id=collection.tenant_id, query=SearchQuery("old content")).hits[0].version == 1


def test_a_first_version_that_fails_leaves_no_chunks_and_a_dead_letter(collection: Collection, ingest: Put) -> None:
    bad = ingest(collection, b"\x00\x01\x02" * 50, media_type="application/pdf", source_uri="page")
    with tenancy.scope(collection.tenant_id):
        assert Document.objects.get(id=bad.document.id).state == "failed"
        assert IngestionJob.objects.get(id=bad.job.id).state == "dead"
    assert live_rows(collection) == (0, 0)


def test_a_version_that_stepped_aside_gets_its_turn_when_the_newer_one_fails(collection: Collection, put: Put) -> None:
    put(collection, "first wording", version=1, source_uri="page")
    second = put(collection, "second wording", version=2, source_uri="page")
    broken = put(collection, b"%PDF-1.4 broken", media_type="application/pdf", version=3, source_uri="page")
    prepare.drain()
    embed.drain()
    prepare.drain()
    embed.drain()
    with tenancy.scope(collection.tenant_id):
        assert IngestionJob.objects.get(id=broken.job.id).state == "dead"
        document = Document.objects.get(id=second.document.id)
        assert (document.live_version, document.version, document.state) == (2, 3, "stale")


def test_an_older_version_never_goes_live_after_a_newer_one(collection: Collection, put: Put) -> None:
    first = put(collection, "one", version=1)
    prepare.drain(job_id=first.job.id)  # staged, not yet published
    second = put(collection, "two", version=2)
    prepare.drain(job_id=second.job.id)
    embed.drain(job_id=second.job.id)
    embed.drain(job_id=first.job.id)
    with tenancy.scope(collection.tenant_id):
        assert Document.objects.get(id=first.document.id).live_version == 2
        assert IngestionJob.objects.get(id=first.job.id).outcome == "superseded"
    assert live_rows(collection) == (1, 1)


def test_chunks_are_compared_again_when_another_version_went_live_meanwhile(collection: Collection, put: Put) -> None:
    shared = "A long shared sentence that both versions keep as it is.\n\n# Heading\n\n"
    first = put(collection, shared + "one", media_type="text/markdown", version=1)
    second = put(collection, shared + "two", media_type="text/markdown", version=2)
    with tenancy.scope(collection.tenant_id):
        DocumentVersion.objects.filter(version=2).update(
            error={"code": "held"}
        )  # so that version 1 does not step aside
    prepare.drain(job_id=second.job.id)
    prepare.drain(job_id=first.job.id)
    embed.drain(job_id=first.job.id)
    embed.drain(job_id=second.job.id)  # compared with nothing, but version 1 is live: back to prepare
    with tenancy.scope(collection.tenant_id):
        assert IngestionJob.objects.get(id=second.job.id).stage == "prepare"
    prepare.drain(job_id=second.job.id)
    embed.drain(job_id=second.job.id)
    with tenancy.scope(collection.tenant_id):
        assert Document.objects.get(id=first.document.id).live_version == 2
        assert Chunk.objects.filter(retired_in_version=None, live_from_version=1).count() == 1, (
            "the shared chunk survives"
        )


def test_small_documents_do_not_wait_for_a_large_one(
    collection: Collection, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "WINDOW_TEXTS", 16)
    large = put(collection, "\n\n".join(paragraphs(300)), source_uri="large")
    prepare.drain(job_id=large.job.id)
    [held] = ledger.claim(stage="embed", job_id=large.job.id)
    small = put(collection, "A word in passing.", source_uri="small", priority="urgent")
    prepare.drain(job_id=small.job.id)
    embed.embed([held])
    with tenancy.scope(collection.tenant_id):
        ended = {job.id: job.finished_at for job in IngestionJob.objects.filter(state="done")}
    assert ended[small.job.id] < ended[large.job.id]


def test_small_documents_pass_a_large_one_that_is_being_published(collection: Collection, put: Put) -> None:
    large = put(collection, "\n\n".join(paragraphs(300, seed="passed")), source_uri="large")
    prepare.drain(job_id=large.job.id)
    [held] = ledger.claim(stage="embed", job_id=large.job.id)

    def live(accepted: Accepted) -> bool:
        with tenancy.scope(collection.tenant_id):
            return Document.objects.get(id=accepted.document.id).live_version is not None

    locked, release = Event(), Event()

    def lock() -> None:
        with tenancy.scope(collection.tenant_id):
            Document.objects.select_for_update().get(id=large.document.id)
            locked.set()
            release.wait(60)
        connection.close()

    def work() -> None:
        embed.embed([held])
        connection.close()

    with ThreadPoolExecutor(2) as threads:
        locker = threads.submit(lock)
        assert locked.wait(60)
        worker = threads.submit(work)  # its swap waits for that row
        try:
            small = put(collection, "A word in passing by.", source_uri="small")
            prepare.drain(job_id=small.job.id)
            wait_for(lambda: live(small), what="the small document")
            assert not worker.done() and not live(large)
        finally:
            release.set()
        worker.result(60), locker.result(60)
    assert live(large)


def test_large_documents_leave_no_connection_behind(collection: Collection, put: Put) -> None:
    def taken() -> int:
        connection.close()
        found = connection.pool.get_stats()
        return found["pool_size"] - found["pool_available"]

    before = taken()
    for number in range(3):
        large = put(collection, "\n\n".join(paragraphs(300, seed=f"large {number}")), source_uri=f"large {number}")
        prepare.drain(job_id=large.job.id)
        [held] = ledger.claim(stage="embed", job_id=large.job.id)
        assert held.bytes > ledger.SMALL_BYTES
        embed.embed([held])
    wait_for(lambda: taken() <= before, seconds=10, what="connections to be given back")


def test_the_same_job_run_twice_publishes_once(collection: Collection, put: Put) -> None:
    accepted = put(collection, "\n\n".join(paragraphs(20, seed="twice")))
    for _ in range(3):
        prepare.drain(job_id=accepted.job.id)
        embed.drain(job_id=accepted.job.id)
    chunks, vectors = live_rows(collection)
    assert chunks == vectors > 1
    with tenancy.scope(collection.tenant_id):
        assert Collection.objects.get(id=collection.id).epoch == 1


def test_a_worker_that_lost_its_lease_cannot_write(collection: Collection, put: Put) -> None:
    from apps.documents import ledger

    accepted = put(collection, "leased text")
    [held] = ledger.claim(stage="prepare", job_id=accepted.job.id)
    with tenancy.scope(collection.tenant_id):
        IngestionJob.objects.filter(id=held.id).update(lease_until="2020-01-01T00:00:00Z")
    [other] = ledger.claim(stage="prepare", job_id=accepted.job.id)
    assert other.fence == held.fence + 1
    with ledger.failures(held):
        prepare.prepare(held)
    with tenancy.scope(collection.tenant_id):
        assert StagedChunk.objects.count() == 0
        job = IngestionJob.objects.get(id=held.id)
        assert (job.state, job.fence) == ("running", other.fence)


def test_delete_is_now_and_replays_stay_stale(collection: Collection, ingest: Put) -> None:
    accepted = ingest(collection, "Secret plans for the moon base.", version=3)
    assert remove.delete(tenant_id=collection.tenant_id, document_id=accepted.document.id)
    assert search(tenant_id=collection.tenant_id, query=SearchQuery("moon base")).hits == []
    assert live_rows(collection) == (0, 0)
    with pytest.raises(Problem) as stale:
        ingest(collection, "Secret plans for the moon base.", version=3)
    assert stale.value.code == "stale_version"
    revived = ingest(collection, "New plans.", version=4)
    with tenancy.scope(collection.tenant_id):
        assert Document.objects.get(id=revived.document.id).state == "live"
        stored = Collection.objects.get(id=collection.id)
        assert (stored.documents, stored.chunks) == (1, 1)


def test_a_delete_stops_work_that_is_under_way(collection: Collection, put: Put) -> None:
    accepted = put(collection, "Almost published.")
    prepare.drain(job_id=accepted.job.id)
    remove.delete(tenant_id=collection.tenant_id, document_id=accepted.document.id)
    embed.drain(job_id=accepted.job.id)
    assert live_rows(collection) == (0, 0)
    with tenancy.scope(collection.tenant_id):
        assert Document.objects.get(id=accepted.document.id).live_version is None
        assert IngestionJob.objects.get(id=accepted.job.id).outcome == "deleted"
