"""A tenant, a key and helpers that the benchmarks share."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from uuid import uuid4

from apps.access import keys, tenancy
from apps.documents import collections, spaces
from apps.documents.models import Collection, IngestionJob
from tests.support.processes import wait_for


def house(name: str) -> tuple[Collection, str]:
    """A fresh tenant's collection (the real model's space) and a key of all scopes."""
    tenant = keys.ensure_tenant(slug=f"{name}-{uuid4().hex[:8]}")
    with tenancy.scope(tenant.id):
        collection = collections.create(tenant_id=tenant.id, slug="docs", name="Docs")
    return collection, keys.create_key(tenant_id=tenant.id, name="bench", scopes=["read", "write", "admin"])[1]


def fake_house(name: str) -> tuple[Collection, str]:
    """The same with a space of its own and the `fake` embedder."""
    collection, key = house(name)
    space = spaces.create(slug=f"{name}-{uuid4().hex[:6]}", backend="fake", model="fake", dimensions=384)
    with tenancy.scope(collection.tenant_id):
        Collection.objects.filter(id=collection.id).update(space=space)
        return collections.find("docs"), key


def wait_until_done(collection: Collection, count: int, *, seconds: float) -> None:
    """Until `count` jobs of the collection's tenant are done."""

    def done() -> bool:
        with tenancy.scope(collection.tenant_id):
            return IngestionJob.objects.filter(state="done").count() >= count

    wait_for(done, seconds=seconds, what=f"{count} jobs", every=0.25)  # looking takes a core from what is measured


def milliseconds(samples: Sequence[float]) -> str:
    """p50 and p95 of seconds, as text."""
    ordered = sorted(samples)
    return f"p50 {statistics.median(ordered) * 1000:.1f} ms, p95 {ordered[int(len(ordered) * 0.95) - 1] * 1000:.1f} ms"


class Clock:
    """`with Clock() as clock: ...; clock.seconds`."""

    def __enter__(self) -> Clock:
        self.started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.started
