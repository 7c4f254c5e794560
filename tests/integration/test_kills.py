"""kill -9 in the middle: invariants I3 and I4. No workers but the victims run beside these tests."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import tasks
from apps.documents.accept import Accepted
from apps.documents.models import Collection, Document, IngestionJob
from tests.conftest import DATA, make_collection
from tests.support.processes import Process, wait_for, worker

from .test_ingest import paragraphs
from .test_races import assert_whole

Put = Callable[..., Accepted]


def test_kill_9_of_workers_in_the_middle_loses_and_duplicates_nothing(tenant: Tenant, put: Put) -> None:
    collection = make_collection(tenant)
    count = 500
    for number in range(count):
        put(collection, "\n\n".join(paragraphs(12, seed=f"kill{number}")), source_uri=f"d{number}")
    dice = random.Random(9)

    def start(name: str) -> Process:
        return worker(DATA, "prepare", "embed", "default", name=name, JOB_LEASE_SECONDS="2")

    def done() -> int:
        tasks.sweep()  # what beat does every few seconds: a killed worker's messages are gone
        with tenancy.scope(tenant.id):
            return IngestionJob.objects.filter(state="done").count()

    kills = 0
    running = start("victim0")
    deadline = time.monotonic() + 150
    while done() < count:
        assert time.monotonic() < deadline, f"{done()} of {count} done after {kills} kills; see {running.log}"
        before = done()
        if kills < 4:
            wait_for(lambda: done() >= min(count, before + 40), seconds=60, what="some progress")  # noqa: B023
            time.sleep(dice.uniform(0, 0.2))
            running.kill()
            kills += 1
            running = start(f"victim{kills}")
        else:
            time.sleep(0.5)
    running.kill()
    assert kills == 4
    assert_whole(collection, documents=count)


def test_a_worker_that_sleeps_past_its_leases_does_nothing_twice(tenant: Tenant, put: Put) -> None:
    """SIGSTOP in the middle of its work; another worker takes over, newer versions come; then it wakes up."""
    collection = make_collection(tenant)
    count = 300
    for number in range(count):
        put(collection, "\n\n".join(paragraphs(4, seed=f"nap{number}")), source_uri=f"d{number}", version=1)

    def done() -> int:
        tasks.sweep()
        with tenancy.scope(tenant.id):
            return IngestionJob.objects.filter(state="done").count()

    def epoch() -> int:
        with tenancy.scope(tenant.id):
            return Collection.objects.get(id=collection.id).epoch

    queues = ("prepare", "embed", "default")
    with (
        worker(DATA, *queues, name="sleeper", JOB_LEASE_SECONDS="2") as sleeper,
        worker(DATA, *queues, name="second", JOB_LEASE_SECONDS="2") as second,
    ):
        os.killpg(second.process.pid, signal.SIGSTOP)
        wait_for(lambda: done() > 0, seconds=60, what="the first documents")
        os.killpg(sleeper.process.pid, signal.SIGSTOP)
        assert done() < count, "it sleeps in the middle"
        for number in range(0, count, 10):
            put(collection, f"Newer text {number}.", source_uri=f"d{number}", version=2)
        os.killpg(second.process.pid, signal.SIGCONT)
        wait_for(lambda: done() == count + count // 10, seconds=150, what=f"all to be done by the other: {second.log}")
        assert_whole(collection, documents=count)
        before = epoch()
        os.killpg(sleeper.process.pid, signal.SIGCONT)
        time.sleep(4)
        assert sleeper.process.poll() is None, "it has survived"
    assert epoch() == before, "it has published nothing"
    assert_whole(collection, documents=count)
    with tenancy.scope(tenant.id):
        assert Document.objects.filter(live_version=2).count() == count // 10
