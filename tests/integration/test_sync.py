"""Syncing sources: what is new, changed and gone arrives, once, whatever dies meanwhile."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.problems import Problem
from apps.documents import erasure, ledger, remove
from apps.documents.connectors.types import SourceError
from apps.documents.models import Collection, Document, IngestionJob, Source, SourceItem, SyncRun
from apps.documents.sources import items, kinds, runs, sync, verbs
from tests.conftest import DATA, make_collection
from tests.support.buckets import S3Server
from tests.support.processes import Workers, wait_for, worker
from tests.support.sites import Site, page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        (tmp_path / f"page{number}.md").write_text(f"# Page {number}\n\nThe text of page {number}.\n")
    return tmp_path


def make(collection: Collection, kind: str = "folder", **settings: Any) -> Source:
    with tenancy.scope(collection.tenant_id):
        return verbs.create(
            tenant_id=collection.tenant_id,
            collection=collection.slug,
            kind=kind,
            name=f"{kind} {len(settings)} {time.monotonic_ns()}",
            settings=settings,
        )


def change(source: Source, **values: Any) -> None:
    with tenancy.scope(source.tenant_id):
        verbs.change(source=verbs.find(source.id), values=values)


def request(source: Source, **values: Any) -> SyncRun:
    with tenancy.scope(source.tenant_id):
        return verbs.sync(source=verbs.find(source.id), **values)


def run(source: Source, **values: Any) -> SyncRun:
    """Ask for a sync and do it in this process."""
    asked = request(source, **values)
    held = runs.claim(asked.id)
    assert held is not None
    sync.work(held)
    return found(asked)


def found(asked: SyncRun) -> SyncRun:
    with tenancy.scope(asked.tenant_id):
        return SyncRun.objects.get(id=asked.id)


def documents(source: Source) -> dict[str, Document]:
    with tenancy.scope(source.tenant_id):
        return {each.source_uri: each for each in Document.objects.filter(collection_id=source.collection_id)}


def known(source: Source) -> dict[str, SourceItem]:
    with tenancy.scope(source.tenant_id):
        return {item.key: item for item in SourceItem.objects.filter(source=source)}


def counts(done: SyncRun) -> dict[str, int]:
    assert done.state == "done", done.error
    return {name: number for name, number in done.counts.items() if number}


def test_what_is_new_changed_and_gone_is_found_and_nothing_else_is_read(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    assert counts(run(source)) == {"found": 3, "new": 3}
    assert {name: each.version for name, each in documents(source).items()} == dict.fromkeys(
        ["page0.md", "page1.md", "page2.md"], 1
    )
    status = (folder / "page0.md").stat()
    (folder / "page0.md").write_text("# Page X\n\nThe text of page X.\n")  # whoever reads it sees that
    os.utime(folder / "page0.md", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert counts(run(source)) == {"found": 3, "unchanged": 3}
    (folder / "page1.md").write_text("# Page 1\n\nAnother text.\n")
    (folder / "page2.md").unlink()
    (folder / "new").mkdir()
    (folder / "new" / "page.txt").write_text("A page in a folder.")
    assert counts(run(source)) == {"found": 3, "new": 1, "changed": 1, "unchanged": 1, "removed": 1}
    after = documents(source)
    assert (after["page1.md"].version, after["page0.md"].version, after["page2.md"].state) == (2, 1, "deleted")
    assert set(known(source)) == {"new/page.txt", "page0.md", "page1.md"}
    (folder / "page2.md").write_text("# Page 2\n\nIt is back.\n")
    assert counts(run(source)) == {"found": 4, "new": 1, "unchanged": 3}
    assert (documents(source)["page2.md"].version, documents(source)["page2.md"].state) == (2, "pending")


def test_a_file_that_was_only_touched_is_unchanged(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    run(source)
    os.utime(folder / "page0.md", (1, 1))
    assert counts(run(source)) == {"found": 3, "unchanged": 3}
    assert documents(source)["page0.md"].version == 1 and known(source)["page0.md"].state["mtime_ns"] == 10**9
    assert counts(run(source)) == {"found": 3, "unchanged": 3}


def test_what_cannot_be_taken_is_told_and_leaves_the_rest_alone(collection: Collection, folder: Path) -> None:
    (folder / "empty.txt").write_bytes(b"")
    (folder / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 3)
    source = make(collection, path=str(folder), max_bytes=1_000)
    (folder / "page1.md").write_text("x" * 1_001)
    done = run(source)
    assert counts(done) == {"found": 5, "new": 2, "failed": 3}
    codes = {each["source_uri"]: each["code"] for each in done.failures}
    assert codes == {"empty.txt": "empty", "film.mp4": "unsupported", "page1.md": "too_large"}
    assert {key for key, item in known(source).items() if item.error} == set(codes)
    # What was read and refused is not read again; what could not be read is.
    assert counts(run(source)) == {"found": 5, "unchanged": 4, "failed": 1}
    (folder / "page1.md").write_text("short")
    (folder / "empty.txt").write_text("not any more")
    assert counts(run(source)) == {"found": 5, "changed": 2, "unchanged": 3}
    assert [key for key, item in known(source).items() if item.error] == ["film.mp4"]


def test_a_failed_update_keeps_the_old_version(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    run(source)
    (folder / "page0.md").write_bytes(b"")
    assert run(source).failures[0]["code"] == "empty"
    assert documents(source)["page0.md"].version == 1 and documents(source)["page0.md"].deleted_at is None


def test_a_folder_that_is_not_there_loses_nothing(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    run(source)
    folder.rename(folder.with_name("elsewhere"))
    done = run(source)
    assert done.state == "queued" and done.error["code"] == "unreachable"  # to be tried again
    with tenancy.scope(source.tenant_id):
        SyncRun.objects.filter(id=done.id).update(attempts=9, not_before=done.created_at)
    assert runs.claim(done.id) is None and found(done).state == "failed"
    assert all(each.deleted_at is None for each in documents(source).values()) and len(known(source)) == 3


def test_a_source_that_seems_to_have_lost_everything_is_not_believed_at_once(
    collection: Collection, tmp_path: Path
) -> None:
    for number in range(sync.EMPTY_FROM):
        (tmp_path / f"{number}.txt").write_text(f"text {number}")
    source = make(collection, path=str(tmp_path))
    run(source)
    for path in tmp_path.iterdir():
        path.unlink()
    done = run(source)
    assert (done.state, done.error["code"]) == ("failed", "vanished")
    assert all(each.deleted_at is None for each in documents(source).values())
    assert counts(run(source, empty_it=True)) == {"removed": sync.EMPTY_FROM}
    assert all(each.state == "deleted" for each in documents(source).values()) and not known(source)


def test_fewer_than_that_are_simply_removed(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    run(source)
    for path in folder.iterdir():
        path.unlink()
    assert counts(run(source)) == {"removed": 3}


def test_what_the_settings_leave_out_goes(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    run(source)
    change(source, settings={"path": str(folder), "exclude": ["page1*"]})
    assert counts(run(source)) == {"found": 2, "unchanged": 2, "removed": 1}


def test_two_sources_of_a_collection_do_not_fight_over_a_name(
    collection: Collection, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "page0.md").write_text("The other page 0.")
    (other / "own.md").write_text("Its own.")
    first, second = make(collection, path=str(folder)), make(collection, path=str(other))
    run(first)
    done = run(second)
    assert counts(done) == {"found": 2, "new": 1, "failed": 1} and done.failures[0]["code"] == "source_uri_taken"
    assert documents(first)["page0.md"].version == 1
    (folder / "page0.md").unlink()
    run(first)
    assert counts(run(second)) == {"found": 2, "new": 1, "unchanged": 1}
    assert documents(second)["page0.md"].deleted_at is None


def test_a_document_that_was_there_before_is_adopted(collection: Collection, folder: Path, put: Callable) -> None:
    before = put(collection, "What somebody sent.", source_uri="page0.md").document
    source = make(collection, path=str(folder))
    assert counts(run(source)) == {"found": 3, "new": 3}
    assert documents(source)["page0.md"].id == before.id and documents(source)["page0.md"].version == 2


def test_what_was_erased_does_not_come_back(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    run(source)
    erased = documents(source)["page1.md"]
    remove.delete(tenant_id=source.tenant_id, document_id=erased.id, erase=True)
    with tenancy.scope(source.tenant_id):
        assert not any(erasure.traces(erased.id).values())
    done = run(source)
    assert counts(done) == {"found": 3, "unchanged": 2, "failed": 1}
    assert done.failures[0]["code"] == "erased" and "page1" not in str(done.failures)
    assert "page1.md" not in documents(source) and "page1.md" not in known(source)
    (folder / "page1.md").write_text("Changed, but erased nevertheless.")
    assert counts(run(source)) == {"found": 3, "unchanged": 2, "failed": 1}


def test_an_erase_removes_the_name_from_what_runs_tell(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    run(source)
    (folder / "page1.md").write_bytes(b"")
    done = run(source)
    assert done.failures[0]["source_uri"] == "page1.md"
    remove.delete(tenant_id=source.tenant_id, document_id=documents(source)["page1.md"].id, erase=True)
    assert found(done).failures == []


def test_what_a_person_deleted_stays_deleted_until_it_changes(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    run(source)
    remove.delete(tenant_id=source.tenant_id, document_id=documents(source)["page1.md"].id)
    assert counts(run(source)) == {"found": 3, "unchanged": 3}
    assert documents(source)["page1.md"].state == "deleted"
    (folder / "page1.md").write_text("New text.")
    assert counts(run(source)) == {"found": 3, "changed": 1, "unchanged": 2}


def test_a_source_is_never_read_twice_at_once(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    first = request(source)
    assert request(source).id == first.id  # it waits, and will do
    held = runs.claim(first.id)
    assert held is not None
    second = request(source)
    assert second.id != first.id and second.state == "queued" and request(source).id == second.id
    claimed: list[Any] = []
    threads = [threading.Thread(target=lambda: claimed.append(runs.claim())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [each for each in claimed if each and each.source_id == source.id]
    sync.work(held)
    assert runs.claim(second.id) is not None


def test_a_worker_that_lost_its_lease_cannot_write(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    asked = request(source)
    stale = runs.claim(asked.id)
    assert stale is not None
    with tenancy.scope(source.tenant_id):
        SyncRun.objects.filter(id=asked.id).update(lease_until=asked.created_at)
    fresh = runs.claim(asked.id)
    assert fresh is not None and fresh.fence == stale.fence + 1
    sync.work(stale)
    assert not documents(source) and found(asked).state == "running"
    sync.work(fresh)
    assert counts(found(asked)) == {"found": 3, "new": 3}


def test_a_cancelled_run_stops(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    asked = request(source)
    held = runs.claim(asked.id)
    assert held is not None
    with tenancy.scope(source.tenant_id):
        assert runs.cancel(source_id=source.id) == 1
    sync.work(held)
    assert found(asked).state == "cancelled" and not documents(source)


def test_a_run_that_is_cancelled_midway_tells_all_that_it_took(
    collection: Collection, folder: Path, monkeypatch: Any
) -> None:
    source = make(collection, path=str(folder))
    asked = request(source)
    held = runs.claim(asked.id)
    assert held is not None
    note = sync._Sync._note

    def cancel_first(self: Any) -> None:
        with tenancy.scope(source.tenant_id):
            runs.cancel(source_id=source.id)
        note(self)

    monkeypatch.setattr(sync._Sync, "_note", cancel_first)
    sync.work(held)
    ended = found(asked)
    assert ended.state == "cancelled" and ended.counts["new"] == len(documents(source)) == 3
    monkeypatch.undo()
    assert counts(run(source)) == {"found": 3, "unchanged": 3}


def test_a_worker_that_ends_puts_its_run_back(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    asked = request(source)
    held = runs.claim(asked.id)
    assert held is not None
    runs.stopping.set()
    try:
        sync.work(held)
    finally:
        runs.stopping.clear()
    assert (found(asked).state, found(asked).attempts) == ("queued", 0)
    again = runs.claim(asked.id)
    assert again is not None
    sync.work(again)
    assert counts(found(asked)) == {"found": 3, "new": 3}


def test_a_killed_worker_is_followed_by_one_that_goes_on(collection: Collection, tmp_path: Path) -> None:
    for number in range(600):
        (tmp_path / f"{number:04}.txt").write_text(f"The text of page {number}.")
    source = make(collection, path=str(tmp_path), watch=False)
    asked = request(source)
    with worker(DATA, "sync", name="doomed"):
        wait_for(lambda: found(asked).counts.get("new", 0) >= 100, what="a part of it", every=0.005)
    assert found(asked).state == "running"
    wait_for(lambda: found(asked).lease_until < timezone.now(), what="the lease to run out")
    taken = len(documents(source))
    assert 100 <= taken < 600
    with worker(DATA, "sync", name="heir"):
        ledger.wake("sync")
        wait_for(lambda: found(asked).state == "done", what="the rest")
    done = found(asked)
    assert done.attempts == 2 and done.counts["unchanged"] >= taken and done.counts["new"] == 600 - taken
    with tenancy.scope(source.tenant_id):
        assert {each.version for each in documents(source).values()} == {1} and len(documents(source)) == 600
        assert IngestionJob.objects.filter(collection_id=collection.id).count() == 600


def test_a_run_whose_workers_keep_dying_is_given_up(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    asked = request(source)
    with tenancy.scope(source.tenant_id):
        SyncRun.objects.filter(id=asked.id).update(attempts=99, state="running", lease_until=asked.created_at)
    assert runs.claim(asked.id) is None
    assert (found(asked).state, found(asked).error["code"]) == ("failed", "worker_lost")


def test_a_site_is_synced(collection: Collection) -> None:
    with Site(
        {"/": page("/a", "/b", text="Home of all."), "/a": page(text="Page a."), "/b": page(text="Page b.")}
    ) as site:
        source = make(collection, "web", url=site.url + "/", delay_seconds=0)
        assert counts(run(source)) == {"found": 3, "new": 3}
        site.pages["/a"] = page(text="Page a, changed.")
        del site.pages["/b"]
        assert counts(run(source)) == {"found": 2, "changed": 1, "unchanged": 1, "removed": 1}
        assert {name.removeprefix(site.url): each.state for name, each in documents(source).items()} == {
            "/": "pending",
            "/a": "pending",
            "/b": "deleted",
        }
        with override_settings(SOURCE_PRIVATE_HOSTS=[]):
            refused = run(source)
        assert refused.state == "failed" and refused.error["code"] == "forbidden_address"
        assert counts(run(source)) == {"found": 2, "unchanged": 2}


def test_a_bucket_is_synced(collection: Collection) -> None:
    with S3Server() as server:
        bucket = server.bucket(**{"a.txt": b"Object a.", "b.txt": b"Object b.", "c/d.md": b"# Object d"})
        key, secret = server.demand_keys()
        source = make(collection, "s3", bucket=bucket, endpoint=server.url, access_key=key, secret_key=secret)
        assert "secret_key" not in source.settings and secret.encode() not in bytes(source.secret or b"")
        assert counts(run(source)) == {"found": 3, "new": 3}
        server.demand_no_keys()
        server.put(bucket, "a.txt", b"Object a, changed.")
        server.admin.delete_object(Bucket=bucket, Key="c/d.md")
        server.demand_keys()
        assert counts(run(source)) == {"found": 2, "changed": 1, "unchanged": 1, "removed": 1}
        with override_settings(SOURCE_PRIVATE_HOSTS=[]):
            assert run(source).error["code"] == "forbidden_address"
        change(source, settings={"bucket": bucket, "endpoint": server.url, "access_key": key})  # the secret stays
        assert counts(run(source)) == {"found": 2, "unchanged": 2}
        with override_settings(SECRET_KEY="another"):
            assert run(source).error["code"] == "unauthorized"
        with tenancy.scope(source.tenant_id), pytest.raises(Problem) as refused:
            verbs.change(
                source=verbs.find(source.id),
                values={"settings": {"bucket": bucket, "endpoint": server.url, "access_key": "other"}},
            )
        assert refused.value.errors[0]["pointer"] == "/settings/secret_key"


def test_deleting_a_source_keeps_its_documents_or_takes_them_along(collection: Collection, folder: Path) -> None:
    source = make(collection, path=str(folder))
    run(source)
    with tenancy.scope(source.tenant_id):
        verbs.delete(source=verbs.find(source.id), documents=False)
    assert len(documents(source)) == 3 and not known(source)
    again = make(collection, path=str(folder))
    assert counts(run(again)) == {"found": 3, "unchanged": 3}
    with tenancy.scope(source.tenant_id):
        verbs.delete(source=verbs.find(again.id), documents=True)
        assert not Source.objects.exists() and not SyncRun.objects.exists()
    assert {each.state for each in documents(source).values()} == {"deleted"}


def test_many_items_are_known_a_page_at_a_time(collection: Collection, tmp_path: Path) -> None:
    source = make(collection, path=str(tmp_path), watch=False)
    keys = [f"k{number:05}" for number in range(0, 5_000, 2)]
    with tenancy.scope(source.tenant_id):
        SourceItem.objects.bulk_create(
            SourceItem(collection=collection, key=key, tenant_id=source.tenant_id, source=source, state={"n": key})
            for key in keys
        )
    held = items.InOrder(tenant_id=source.tenant_id, source_id=source.id)
    assert held.get("k00000") == {"n": "k00000"} and held.get("k00001") is None and held.see("k00001") is None
    assert held.get("k00010") == {"n": "k00010"}
    assert held.missing == ["k00002", "k00004", "k00006", "k00008"]
    assert held.get("k00004") == {"n": "k00004"} and held.returned == ["k00004"]  # an order that nobody promised
    for _ in held.rest_is_missing():
        pass
    assert held.missing == [key for key in keys if key not in ("k00000", "k00010")]


def test_an_order_that_is_broken_deletes_nothing(collection: Collection, folder: Path, monkeypatch: Any) -> None:
    source = make(collection, path=str(folder))
    run(source)
    scan = kinds.scan
    monkeypatch.setattr(kinds, "scan", lambda *given: (each for each in reversed(list(scan(*given)))))
    assert counts(run(source)) == {"found": 3, "unchanged": 3}
    assert len(known(source)) == 3 and all(each.deleted_at is None for each in documents(source).values())


def test_a_scan_that_breaks_off_deletes_nothing(collection: Collection, folder: Path, monkeypatch: Any) -> None:
    source = make(collection, path=str(folder))
    run(source)

    def broken(*given: Any) -> Iterator[Any]:
        yield from list(scan(*given))[2:]
        raise SourceError("unreadable", "The disk is broken.")

    scan = kinds.scan
    with monkeypatch.context() as patched:
        patched.setattr(kinds, "scan", broken)
        assert run(source).error == {"code": "unreadable", "detail": "The disk is broken."}
    assert all(each.deleted_at is None for each in documents(source).values())
    assert counts(run(source)) == {"found": 3, "unchanged": 3}


def test_what_was_read_before_a_scan_broke_off_is_not_read_again(
    collection: Collection, folder: Path, monkeypatch: Any
) -> None:
    def broken(*given: Any) -> Iterator[Any]:
        yield from list(scan(*given))[:2]
        raise SourceError("unreadable", "The disk is broken.")

    source, scan = make(collection, path=str(folder)), kinds.scan
    with monkeypatch.context() as patched:
        patched.setattr(kinds, "scan", broken)
        assert run(source).state == "failed"
    assert set(known(source)) == {"page0.md", "page1.md"}
    assert counts(run(source)) == {"found": 3, "new": 1, "unchanged": 2}


def test_a_collection_that_is_deleted_meanwhile_ends_the_run(
    collection: Collection, folder: Path, monkeypatch: Any
) -> None:
    from apps.documents import collections

    def deleting(*given: Any) -> Iterator[Any]:
        yield from list(scan(*given))
        with tenancy.scope(collection.tenant_id):
            collections.remove(collection=collection)

    source, scan = make(collection, path=str(folder)), kinds.scan
    held = runs.claim(request(source).id)
    assert held is not None
    monkeypatch.setattr(kinds, "scan", deleting)
    sync.work(held)
    with tenancy.scope(collection.tenant_id):
        assert not Document.objects.exists() and not SourceItem.objects.exists() and not SyncRun.objects.exists()


def test_a_deleted_collection_takes_its_sources_along(tenant: Tenant, folder: Path) -> None:
    from apps.documents import collections

    collection = make_collection(tenant, slug="gone")
    source = make(collection, path=str(folder))
    change(source, schedule="0 3 * * *")
    run(source)
    asked = request(source)
    with tenancy.scope(tenant.id):
        collections.remove(collection=collection)
        assert not Source.objects.exists() and not SourceItem.objects.exists() and not SyncRun.objects.exists()
    assert runs.claim(asked.id) is None


def test_a_watched_folder_is_synced_as_soon_as_it_changes(
    collection: Collection, folder: Path, workers: Workers
) -> None:
    source = make(collection, path=str(folder))
    wait_for(lambda: len(documents(source)) == 3, what="the first sync")
    (folder / "page9.md").write_text("# Nine\n\nWritten while somebody watches.")
    wait_for(lambda: "page9.md" in documents(source), seconds=20, what="the new file")
    (folder / "page0.md").unlink()
    wait_for(lambda: documents(source)["page0.md"].state == "deleted", seconds=20, what="the removal")
    wait_for(lambda: documents(source)["page9.md"].state == "live", what="it to be found")
    shutil.rmtree(folder)
    time.sleep(1)
    assert documents(source)["page9.md"].state == "live"
