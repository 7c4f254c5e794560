"""Peak memory of the worker processes while they ingest one 100 MB text.

The `fake` embedder, because 250,000 chunks would keep the real model busy for an hour and a half: what is measured is
how much of a large document the workers hold, and the real model's own 160 to 200 MiB come on top.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from apps.access import tenancy
from apps.documents import spaces
from apps.documents.models import Collection
from tests.support.processes import Server, Workers, wait_for

from .corpus import WORDS
from .stack import Clock, house, wait_until_done

MEGABYTES = 100


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    collection, key = house("memory")
    space = spaces.create(slug="bench-fake", backend="fake", model="fake", dimensions=8)
    with tenancy.scope(collection.tenant_id):
        Collection.objects.filter(id=collection.id).update(space=space)
    with Server(data) as server, Workers(data) as workers, tempfile.TemporaryFile() as file:
        wait_for(workers.ready, what="workers")
        _write(file)
        watched = {"web": server.running, "prepare": workers.processes[0], "embed": workers.processes[1]}
        before = {name: rss(process.process.pid) for name, process in watched.items()}
        peaks = dict(before)
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.1):
                for name, process in watched.items():
                    peaks[name] = max(peaks[name], rss(process.process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        with httpx.Client(base_url=server.url, headers={"X-API-Key": key}, timeout=600) as client, Clock() as clock:
            file.seek(0)
            upload = {"file": ("large.txt", file, "text/plain")}
            response = client.post("/api/v1/documents", data={"collection": "docs"}, files=upload)
            assert response.status_code == 202, response.text
            wait_until_done(collection, 1, seconds=3_000)
        stop.set()
        watcher.join()
        with tenancy.scope(collection.tenant_id):
            chunks = Collection.objects.get(id=collection.id).chunks
    for name in watched:
        yield (
            f"{name} process and its children, {MEGABYTES} MB of text, {chunks} chunks, {clock.seconds:.0f} s",
            "bounded",
            f"peak {peaks[name]:.0f} MiB (idle {before[name]:.0f} MiB)",
        )


def _write(file: object) -> None:
    dice = random.Random(100)
    written = 0
    while written < MEGABYTES * 1_000_000:
        paragraph = (" ".join(dice.choices(WORDS, k=120)).capitalize() + ".\n\n").encode()
        written += file.write(paragraph)  # type: ignore[attr-defined]


def rss(pid: int) -> float:
    """MiB of a process and its children; 0 for one that has just gone."""
    total = 0
    try:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        time.sleep(0)
    return total / 2**20
