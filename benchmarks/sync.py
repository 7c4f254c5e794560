"""Syncing a folder of 100,000 files by a real worker: first, unchanged, and with one in a hundred changed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from django.test import override_settings

from apps.access import tenancy
from apps.documents.connectors import folder
from apps.documents.models import Source, SyncRun
from apps.documents.sources import verbs
from tests.support.processes import Process, wait_for, worker

from .stack import Clock, fake_house

FILES, EVERY = 100_000, 100


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    root = data / "files"
    for number in range(FILES):
        path = root / f"{number // 1_000:03}" / f"page {number:06}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"The text of page {number}, which is short.")
    collection, _ = fake_house("sync")
    with override_settings(SOURCE_FOLDERS=["/"]), tenancy.scope(collection.tenant_id):
        settings = {"path": str(root), "watch": False}
        source = verbs.create(
            tenant_id=collection.tenant_id, collection="docs", kind="folder", name="files", settings=settings
        )
    with Clock() as listing:
        found = sum(1 for _ in folder.scan(source.settings, {}, roots=[Path("/")]))
    yield f"listing {found:,} files, nothing else", "", f"{listing.seconds:.1f} s"
    with worker(data, "sync", name="sync", pool="threads") as process:
        seconds, counts = _sync(source)
        yield (
            f"first sync of {FILES:,} files (documents accepted, jobs written)",
            "",
            f"{seconds:.0f} s, {FILES / seconds:,.0f}/s; {_told(counts, process)}",
        )
        for turn in (1, 2, 3):
            seconds, counts = _sync(source)
            yield f"unchanged, turn {turn}", "<= 60 s", f"{seconds:.1f} s; {_told(counts, process)}"
        for number in range(0, FILES, EVERY):
            (root / f"{number // 1_000:03}" / f"page {number:06}.txt").write_text(f"Page {number}, changed.")
        for number in range(1, FILES, EVERY):
            os.unlink(root / f"{number // 1_000:03}" / f"page {number:06}.txt")
        seconds, counts = _sync(source)
        yield "1 % changed and 1 % removed", "", f"{seconds:.1f} s; {_told(counts, process)}"


def _sync(source: Source) -> tuple[float, dict[str, int]]:
    """Seconds from the request to its end, and what was found."""
    started = time.perf_counter()
    with tenancy.scope(source.tenant_id):
        asked = verbs.sync(source=verbs.find(source.id)).id

    def ended() -> SyncRun | None:
        with tenancy.scope(source.tenant_id):
            return SyncRun.objects.filter(id=asked, finished_at__isnull=False).first()

    done = wait_for(ended, seconds=3_600, what="the run", every=0.1)
    assert done.state == "done", done.error
    return time.perf_counter() - started, done.counts


def _told(counts: dict[str, int], process: Process) -> str:
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    named = ", ".join(f"{number:,} {name}" for name, number in counts.items() if number and name != "found")
    return f"{named}; worker's peak {peak / 1024:.0f} MiB"
