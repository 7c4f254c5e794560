"""`manage.py ingest`: folders, files and lines, by the workers or here, stopped and begun again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from django.db import connections

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import bulk, ledger, load, merge, spaces, vector_index
from apps.documents.admin import shown
from apps.documents.collections import Progress
from apps.documents.models import Blob, Chunk, Collection, Document, DocumentVersion, EmbeddingSpace, IngestionJob
from apps.documents.parsing import parse
from apps.documents.prepare import pages
from apps.documents.remove import delete
from tests.conftest import make_collection
from tests.support.papers import archive
from tests.support.processes import ROOT, wait_for

from .test_ingest import live_rows, paragraphs


def ingest(path: Path, tenant: Tenant, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "manage.py", "ingest", str(path), "--collection", "docs", "--tenant", tenant.slug, *options]
    return subprocess.run(argv, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120)


def begin(path: Path, tenant: Tenant, *options: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "manage.py", "ingest", str(path), "--collection", "docs", "--tenant", tenant.slug, *options]
    told = subprocess.PIPE
    return subprocess.Popen(argv, cwd=ROOT, stdout=told, stderr=told, text=True, start_new_session=True)


def write_lines(path: Path, count: int, *, change: int | None = None) -> Path:
    lines = []
    for number in range(count):
        text = f"The passage {number} of the book." + (" Revised." if change and number % change == 0 else "")
        lines.append(json.dumps({"source_uri": f"p{number}", "text": text, "metadata": {"n": number}}))
    path.write_text("\n".join(lines) + "\n")
    return path


def assert_whole(collection: Collection, documents: int) -> None:
    """Live once each, with all that a document has: its version, bytes, chunks and vectors; nothing on the stage."""
    with tenancy.scope(collection.tenant_id):
        stored = {document.id: document for document in Document.objects.filter(collection=collection)}
        assert len(stored) == documents and {document.state for document in stored.values()} == {"live"}
        versions = list(DocumentVersion.objects.filter(document__collection=collection))
        current = {each.document_id: each for each in versions if each.version == stored[each.document_id].live_version}
        assert set(current) == set(stored)
        chunks = Chunk.objects.filter(collection=collection, retired_in_version=None).values_list("chunk_id", flat=True)
        placed = [chunk for each in current.values() for chunk in each.chunk_ids]
        assert sorted(chunks) == sorted(placed)
        assert Blob.objects.filter(document__collection=collection).values(
            "document_id", "version"
        ).distinct().count() == len(versions)
        counted = Collection.objects.get(id=collection.id)
        assert (counted.documents, counted.chunks) == (documents, len(placed))
    assert live_rows(collection) == (len(placed), len(placed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    root = tmp_path / "in"
    (root / "a.txt").write_text("\n\n".join(paragraphs(6)))
    (root / "deep").mkdir()
    (root / "deep" / "b.md").write_text("# A title\n\nSome words below it.")
    (root / "deep" / "c.html").write_text("<html><head><title>Page</title></head><body><p>Words.</p></body></html>")
    (root / "large.txt").write_text("\n\n".join(paragraphs(3_000)))
    (root / "lines.jsonl").write_text('{"text": "a log, not documents"}\n')
    (root / ".hidden").write_text("nobody's business")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("nobody's business")
    return root


NAMES = {"a.txt", "deep/b.md", "deep/c.html", "large.txt", "lines.jsonl"}


@pytest.mark.parametrize("how", ["workers", "bulk"])
def test_a_folder_becomes_searchable_and_again_costs_nothing(
    how: str, folder: Path, tenant: Tenant, collection: Collection, request: pytest.FixtureRequest
) -> None:
    if how == "workers":
        request.getfixturevalue("workers")
    options = ["--bulk"] if how == "bulk" else []
    done = ingest(folder, tenant, *options)
    assert done.returncode == 0, done.stderr
    assert "5 accepted, 0 unchanged, 0 refused, 0 failed" in done.stdout
    with tenancy.scope(tenant.id):
        stored = {document.source_uri: document for document in Document.objects.all()}
        assert set(stored) == NAMES and stored["deep/c.html"].title == "Page"
        version = DocumentVersion.objects.get(document_id=stored["deep/b.md"].id)
        assert version.filename == "b.md" and version.media_type == "text/markdown" and version.source_updated_at
    assert_whole(collection, 5)
    (folder / "a.txt").write_text("\n\n".join(paragraphs(7)))
    again = ingest(folder, tenant, *options)
    assert "1 accepted, 4 unchanged, 0 refused, 0 failed" in again.stdout, again.stderr
    assert_whole(collection, 5)
    with tenancy.scope(tenant.id):
        assert Document.objects.get(source_uri="a.txt").live_version == 2


def test_a_load_keeps_the_pages_of_an_archives_members(tmp_path: Path, tenant: Tenant, collection: Collection) -> None:
    path = tmp_path / "papers.zip"
    path.write_bytes(archive())
    assert "1 accepted" in ingest(path, tenant, "--bulk").stdout
    with tenancy.scope(tenant.id):
        version = DocumentVersion.objects.get()
    assert (version.page_starts, version.page_numbers) == pages(parse(archive(), filename="papers.zip"))
    assert {1, 2, 3, None} == set(version.page_numbers)


def test_a_load_stores_long_values_as_the_workers_do(tmp_path: Path, tenant: Tenant, collection: Collection) -> None:
    """Not compressed, which each reader would pay for."""
    (tmp_path / "long.txt").write_text("A passage that says nothing new. " * 300)
    assert "1 accepted" in ingest(tmp_path, tenant, "--bulk").stdout
    with tenancy.scope(tenant.id), connections["default"].cursor() as cursor:
        for table, column in (("blob", "data"), ("documentversion", "text")):
            cursor.execute(f"SELECT octet_length({column}), pg_column_compression({column}) FROM documents_{table}")
            assert cursor.fetchall() == [(9_900, None)]


def test_what_a_load_leaves_to_the_ledger_has_the_priority_asked_for(
    folder: Path, tenant: Tenant, collection: Collection
) -> None:
    assert ingest(folder, tenant, "--bulk", "--priority", "low").returncode == 0
    with tenancy.scope(tenant.id):
        large = Document.objects.get(source_uri="large.txt")
        assert IngestionJob.objects.get(document_id=large.id).priority == IngestionJob.Priority.LOW


def test_what_cannot_be_taken_is_named_and_the_rest_goes_in(
    folder: Path, tenant: Tenant, collection: Collection
) -> None:
    (folder / "empty.txt").write_text("")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(100))
    Path(os.fsdecode(bytes(folder) + b"/bad\xffname.txt")).write_text("Words.")
    os.mkfifo(folder / "pipe")  # nobody writes into it
    (folder / "broken.txt").write_bytes(b"Gr\xfc\xdfe, \xff\xfe\x81\x8d broken" + "ü".encode() * 50)
    done = ingest(folder, tenant, "--bulk")
    assert done.returncode == 1
    assert "5 accepted, 0 unchanged, 4 refused, 0 failed" in done.stdout, done.stdout + done.stderr
    for name in ("empty.txt: ", "picture.png: ", "broken.txt: ", "name.txt: The file's name is not UTF-8"):
        assert name in done.stderr
    assert "Traceback" not in done.stderr
    with tenancy.scope(tenant.id):
        assert set(Document.objects.filter(state="live").values_list("source_uri", flat=True)) == NAMES


@pytest.mark.parametrize(
    ("path", "options", "told"),
    [
        ("nowhere", [], "There is no"),
        ("in", ["--tenant", "nobody"], "There is no tenant"),
        ("in", ["--collection", "No Slug!"], "lower-case"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, tenant: Tenant, collection: Collection, path: str, options: list[str], told: str
) -> None:
    done = ingest(folder.parent / path, tenant, *options)
    assert done.returncode == 1 and told in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_lines_are_documents_and_only_changes_are_embedded_again(
    tmp_path: Path, tenant: Tenant, collection: Collection
) -> None:
    log = tmp_path / "embedded.jsonl"
    lines = write_lines(tmp_path / "book.ndjson", 1_000)
    done = ingest(lines, tenant, "--bulk", RAGSITE_FAKE_EMBED_LOG=str(log))
    assert "1000 accepted, 0 unchanged, 0 refused, 0 failed" in done.stdout, done.stderr
    assert_whole(collection, 1_000)
    assert _embedded(log) == 1_000
    again = ingest(write_lines(lines, 1_000, change=100), tenant, "--bulk", RAGSITE_FAKE_EMBED_LOG=str(log))
    assert "10 accepted, 990 unchanged, 0 refused, 0 failed" in again.stdout, again.stderr
    assert_whole(collection, 1_000)
    assert _embedded(log) == 1_010


def _embedded(log: Path) -> int:
    return sum(json.loads(line)["n"] for line in log.read_text().splitlines())


def test_stopped_with_ctrl_c_it_goes_on_where_it_was(tmp_path: Path, tenant: Tenant, collection: Collection) -> None:
    lines = write_lines(tmp_path / "book.ndjson", 6_000)
    running = begin(lines, tenant, "--bulk")
    wait_for(lambda: _documents(collection) >= 400, what="some documents")
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all processes of the job
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130 and "Finishing what has begun" in told and "Traceback" not in told, told
    first = _documents(collection)
    assert 400 <= first < 6_000 and f"Stopped after {first} of 6000" in told
    assert_whole(collection, first)
    done = ingest(lines, tenant, "--bulk")
    unchanged = int(re.search(r"(\d+) unchanged", done.stdout)[1])  # type: ignore[index]
    assert unchanged == first and done.returncode == 0
    assert_whole(collection, 6_000)


def test_lines_of_another_collection_are_refused_and_every_refusal_is_told(
    tmp_path: Path, tenant: Tenant, collection: Collection
) -> None:
    path = tmp_path / "lines.ndjson"
    lines = ['{"text": "One."}', '{"collection": "docs", "text": "Two."}']
    lines += [f'{{"collection": "other", "text": "{number}."}}' for number in range(40)]
    path.write_text("\ufeff" + "\n".join(lines))
    done = ingest(path, tenant, "--bulk")
    assert "2 accepted, 0 unchanged, 40 refused, 0 failed" in done.stdout, done.stdout + done.stderr
    assert done.stderr.count("The line is for 'other', the command for 'docs'.") == 40


@pytest.mark.parametrize("by", ["a second Ctrl-C", "SIGTERM", "SIGKILL"])
def test_it_ends_at_once_with_all_its_processes(
    by: str, tmp_path: Path, tenant: Tenant, collection: Collection
) -> None:
    running = begin(write_lines(tmp_path / "book.ndjson", 20_000), tenant, "--bulk")
    wait_for(lambda: _documents(collection) >= 200, what="some documents")
    children = psutil.Process(running.pid).children(recursive=True)
    assert len(children) >= os.cpu_count()  # type: ignore[operator]
    if by == "a second Ctrl-C":
        for _ in range(2):
            os.killpg(running.pid, signal.SIGINT)
            time.sleep(0.3)
    else:
        running.send_signal(signal.Signals[by])
    _, told = running.communicate(timeout=5)
    assert "Traceback" not in told, told
    wait_for(lambda: not any(child.is_running() for child in children), seconds=5, what="its processes to end")
    time.sleep(0.5)  # what Postgres was told before is still being done
    assert_whole(collection, _documents(collection))


def test_killed_it_has_stored_whole_documents_only(tmp_path: Path, tenant: Tenant, collection: Collection) -> None:
    lines = write_lines(tmp_path / "book.ndjson", 6_000)
    for least in (200, 1_500):
        running = begin(lines, tenant, "--bulk")
        wait_for(lambda least=least: _documents(collection) >= least, what="some documents")
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        time.sleep(0.5)  # what Postgres was told before is still being done
        assert_whole(collection, _documents(collection))
    assert ingest(lines, tenant, "--bulk").returncode == 0
    assert_whole(collection, 6_000)


def test_ctrl_c_while_it_waits_for_the_workers_is_told(
    tmp_path: Path, tenant: Tenant, collection: Collection, put: Callable[..., Any]
) -> None:
    job = put(collection, "Out of the workers' reach.", source_uri="waits").job
    with tenancy.scope(collection.tenant_id):
        IngestionJob.objects.filter(id=job.id).update(not_before=job.created_at + timedelta(hours=1))
    running = begin(write_lines(tmp_path / "book.ndjson", 1), tenant)
    wait_for(lambda: _documents(collection) == 2, what="the document")
    time.sleep(1.5)
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=30)
    assert running.returncode == 130 and "the workers go on" in told and "Traceback" not in told, told
    with tenancy.scope(collection.tenant_id):
        for each in IngestionJob.objects.exclude(state="done"):
            ledger.cancel(job_id=each.id)  # other tests count what is open


def _documents(collection: Collection) -> int:
    with tenancy.scope(collection.tenant_id):
        return Document.objects.filter(collection=collection).count()


def _submission(uri: str, text: str, **more: Any) -> Any:
    line = json.dumps({"source_uri": uri, "text": text, **more}).encode()
    return load.read([("", line)], collection="docs", priority="normal")[0][1]


def test_what_is_not_plainly_new_goes_the_ledgers_way(
    collection: Collection, other_tenant: Tenant, put: Callable[..., Any]
) -> None:
    theirs = put(make_collection(other_tenant), "Theirs.").document.id
    put(collection, "Waiting.", source_uri="waiting")
    mine = str(uuid4())
    documents = [
        _submission("new", "New."),
        _submission("new", "New again."),
        _submission("numbered", "Numbered.", version=7),
        _submission("chosen", "Chosen.", id=mine),
        _submission("theirs", "Theirs?", id=str(theirs)),
        _submission("waiting", "Waiting."),
        _submission("markup", "<html><body> </body></html>", media_type="text/html"),
        _submission("new", "New again."),
    ]
    told = bulk.put_here(collection=collection, submissions=documents)
    assert [each if isinstance(each, str) else each.code for each in told] == [
        merge.MERGED,
        merge.MERGED,
        merge.MERGED,
        merge.MERGED,
        "id_unavailable",
        merge.UNCHANGED,
        "empty",
        merge.UNCHANGED,
    ]
    with tenancy.scope(collection.tenant_id):
        stored = {document.source_uri: document for document in Document.objects.all()}
        assert {uri: (each.live_version, each.state) for uri, each in stored.items() if uri != "waiting"} == {
            "new": (2, "live"),
            "numbered": (7, "live"),
            "chosen": (1, "live"),
            "markup": (None, "failed"),
        }
        assert str(stored["chosen"].id) == mine
    # The number of a document that was loaded so guards it like any other.
    assert (
        bulk.put_here(collection=collection, submissions=[_submission("numbered", "Late.", version=6)])[0].code
        == "stale_version"
    )


def test_two_loads_of_the_same_documents_at_once_store_each_once(collection: Collection) -> None:
    documents = [_submission(f"d{number}", f"Text number {number}.") for number in range(150)]
    outcomes: list[list[Any]] = []

    def run() -> None:
        try:
            outcomes.append(bulk.put_here(collection=collection, submissions=documents))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.count(merge.MERGED) for outcome in outcomes if len(outcome) == 150]
    assert sum(outcome.count(merge.MERGED) for outcome in outcomes) == 150
    assert sum(outcome.count(merge.UNCHANGED) for outcome in outcomes) == 450
    assert_whole(collection, 150)


def test_deleted_and_erased_documents_keep_their_numbers_in_a_load(
    collection: Collection, put: Callable[..., Any]
) -> None:
    for uri, erase in (("deleted", False), ("erased", True)):
        bulk.put_here(collection=collection, submissions=[_submission(uri, "First.", version=5)])
        with tenancy.scope(collection.tenant_id):
            document = Document.objects.get(source_uri=uri)
        delete(tenant_id=collection.tenant_id, document_id=document.id, erase=erase)
        told = bulk.put_here(
            collection=collection,
            submissions=[_submission(uri, "First.", version=4), _submission(uri, "Back.", version=6)],
        )
        assert [each if isinstance(each, str) else each.code for each in told] == ["stale_version", merge.MERGED]
        with tenancy.scope(collection.tenant_id):
            assert Document.objects.get(source_uri=uri).id == document.id


@pytest.fixture
def own_space(database: None) -> EmbeddingSpace:
    return spaces.create(slug=f"s{uuid4().hex[:8]}", backend="fake", model="fake", dimensions=384)


def _has_index(space: EmbeddingSpace) -> bool:
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [vector_index.index_name(space)])
        return bool(cursor.fetchone()[0])


def test_a_first_load_gets_its_index_at_the_end_and_a_later_one_keeps_it(
    tmp_path: Path, tenant: Tenant, own_space: EmbeddingSpace
) -> None:
    collection = make_collection(tenant, space=own_space.slug)
    lines = write_lines(tmp_path / "book.ndjson", 500)
    done = ingest(lines, tenant, "--bulk")
    assert "their vector index in" in done.stdout and _has_index(own_space), done.stderr
    assert_whole(collection, 500)
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)::oid", [vector_index.index_name(own_space)])
        before = cursor.fetchone()
    more = tmp_path / "more.ndjson"
    more.write_text('{"source_uri": "one more", "text": "One more."}\n')
    assert "their vector index in" not in ingest(more, tenant, "--bulk").stdout
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)::oid", [vector_index.index_name(own_space)])
        assert cursor.fetchone() == before


def test_an_index_that_a_killed_load_never_built_is_built_by_the_next_one(
    tmp_path: Path, tenant: Tenant, own_space: EmbeddingSpace
) -> None:
    make_collection(tenant, space=own_space.slug)
    assert ingest(write_lines(tmp_path / "book.ndjson", 300), tenant, "--bulk").returncode == 0
    with connections["owner"].cursor() as cursor:
        cursor.execute(f'DROP INDEX "{vector_index.index_name(own_space)}"')
    assert ingest(write_lines(tmp_path / "less.ndjson", 3), tenant, "--bulk").returncode == 0
    assert _has_index(own_space)


def test_an_index_that_a_killed_load_never_built_is_built_by_the_next_migrate(own_space: EmbeddingSpace) -> None:
    with connections["owner"].cursor() as cursor:
        cursor.execute(f'DROP INDEX "{vector_index.index_name(own_space)}"')
    spaces.ensure_default_after_migrate(using="owner")
    assert _has_index(own_space)


def test_progress_tells_what_is_open_how_fast_it_goes_and_how_long_it_takes(
    client: Any, collection: Collection, put: Callable[..., Any]
) -> None:
    before = client.get("/api/v1/collections/docs").json()
    assert (before["indexed_per_minute"], before["eta_seconds"]) == (0, None)
    jobs = [put(collection, f"Text {number}.", source_uri=f"d{number}").job for number in range(6)]
    waiting = client.get("/api/v1/collections/docs").json()
    assert (waiting["pending"], waiting["indexed_per_minute"], waiting["eta_seconds"]) == (6, 0, None)
    with tenancy.scope(collection.tenant_id):
        IngestionJob.objects.filter(id__in=[job.id for job in jobs[:4]]).update(
            state="done", finished_at=jobs[0].created_at
        )
    going = client.get("/api/v1/collections/docs").json()
    assert (going["indexed_per_minute"], going["eta_seconds"]) == (4, 30)


@pytest.mark.parametrize(
    ("going", "told"),
    [
        (Progress(), "0"),
        (Progress(pending=6, open=6), "6"),
        (Progress(pending=6, open=2, per_minute=4), "6 (about 1 min)"),
        (Progress(pending=9_000, open=9_000, per_minute=30), "9000 (about 5 h)"),
    ],
)
def test_the_desk_says_how_long_it_takes(going: Progress, told: str) -> None:
    assert shown.pending(going) == told
