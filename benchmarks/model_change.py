"""A change of the embedding model under load: what searches feel of it.

A library of 100,000 chunks (library.py), made vectors of 384 dimensions; the second space is the `fake` backend with
256: a real model on this processor would only be slower at it, and what is measured is what the change itself costs.
Two clients search over HTTP all the time, another one writes documents; one worker embeds. The clients' times with
nothing going on, with the writer, while the second space is filled, while its index is built, and after the promotion.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from apps.documents import spaces
from apps.documents.models import EmbeddingSpace
from apps.retrieval import query_vectors
from tests.support.processes import Server, worker

from .library import NAME, Library, library
from .request_path import driver, request

CHUNKS, CLIENTS, SECONDS, WRITES_PER_SECOND = 100_000, 2, 20.0, 2.0
SECOND = "second"


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    found = library(data, chunks=CHUNKS)
    texts = [text for text, _ in found.asked[:200]]
    vectors = np.stack([vector for _, vector in found.asked[:200]])
    query_vectors._keep(found.collection.tenant_id, found.collection.space, texts, vectors)
    if not EmbeddingSpace.objects.filter(slug=SECOND).exists():
        spaces.create(slug=SECOND, backend="fake", model="fake", dimensions=256)
    at = f"/api/v1/spaces/{EmbeddingSpace.objects.get(slug=SECOND).id}"
    with ExitStack() as stack:
        web = stack.enter_context(Server(data, RESULT_CACHE_MB="0"))
        for queue in ("prepare", "embed"):
            stack.callback(worker(data, queue, "default", name=queue).stop)
        admin = stack.enter_context(web.client(found.key))
        requests = [request(found.key, text, mode) for text in texts for mode in ("dense", "hybrid")]
        ask = stack.enter_context(driver(data, {"search": {"port": web.port, "requests": requests}}))

        def measured(seconds: float) -> list[float]:
            return ask("search", CLIENTS, seconds)["seconds"]

        measured(SECONDS)  # warm
        idle = measured(SECONDS)
        yield from _told("nothing else", idle, idle)
        with _writing(web, found):
            written = measured(SECONDS)
            yield from _told("with a writer", written, idle)
            _done(admin.post(f"{at}/build", json={"collections": [NAME]}))
            began = time.monotonic()
            filling, indexing = [], []
            while _state(admin, at)[0] != "done":
                filling += measured(2.0)
            filled = time.monotonic()
            while _state(admin, at)[1] != "live":
                indexing += measured(2.0)
            indexed = time.monotonic()
            title = f"while {CHUNKS} chunks are embedded by it ({filled - began:.0f} s)"
            yield from _told(title, filling, idle)
            if indexing:
                yield from _told(f"while its index is built ({indexed - filled:.0f} s)", indexing, idle)
            yield from _told("all of the change", filling + indexing, idle, "p95 <= 1.5 x nothing else")
            for verb in ("promote", "rollback"):
                started = time.monotonic()
                _done(admin.post(f"{at}/{verb}", json={}))
                yield f"{verb}, the request", "", f"{time.monotonic() - started:.2f} s"
                yield from _told(f"after {verb}", measured(SECONDS), idle)
            _done(admin.post(f"{at}/retire", json={"collections": [NAME]}))


def _told(name: str, seconds: list[float], idle: list[float], asked: str = "") -> Iterator[tuple[str, str, str]]:
    """(The driver ends with an error where a search fails or finds nothing.)"""
    p50, p95 = (1000 * float(np.percentile(seconds, part)) for part in (50, 95))
    over = float(np.percentile(seconds, 95) / np.percentile(idle, 95))
    yield name, asked, f"p50 {p50:.1f}, p95 {p95:.1f} ms ({over:.2f} x), {len(seconds)} searches, none failed"


def _state(admin: httpx.Client, at: str) -> tuple[str, str]:
    """(of the build, of the space)."""
    shown = admin.get(at).json()
    return shown["collections"][0]["build"]["state"], shown["state"]


def _done(answered: httpx.Response) -> None:
    assert answered.status_code in (200, 202), answered.text


@contextmanager
def _writing(web: Server, found: Library) -> Iterator[None]:
    over, failed = threading.Event(), []

    def write() -> None:
        with web.client(found.key) as client:
            for number in range(10**9):
                if over.wait(1 / WRITES_PER_SECOND):
                    return
                text = f"{found.asked[number % 1_000][0]} {number}. " * 20
                body: dict[str, Any] = {"collection": NAME, "source_uri": f"new-{number % 50}", "text": text}
                answered = client.post("/api/v1/documents", json=body)
                if answered.status_code >= 300:
                    failed.append(answered.text)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()
    assert not failed, failed[0]
