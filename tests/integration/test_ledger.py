"""The ledger under strain: priorities, poison, overload, dead letters."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from datetime import timedelta

import httpx
from django.core.management import call_command
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import embed, ledger, prepare, tasks
from apps.documents.accept import Accepted
from apps.documents.models import Collection, Document, IngestionJob
from tests.conftest import DATA
from tests.support.processes import Server, worker
from tests.support.refusals import DOCUMENTS, refused

Put = Callable[..., Accepted]


def state_of(job: IngestionJob | None) -> str:
    assert job is not None
    with tenancy.scope(job.tenant_id):
        return IngestionJob.objects.get(id=job.id).state


def test_urgent_comes_first_and_low_is_not_starved(collection: Collection, put: Put) -> None:
    prepare.drain()  # what earlier tests have left
    mine = {}
    for name, priority, amount in (("low", "low", 3), ("normal", "normal", 3), ("urgent", "urgent", 14)):
        for number in range(amount):
            mine[put(collection, f"{name} {number}", source_uri=f"{name}{number}", priority=priority).job.id] = name
    order = []
    for claimed in ledger.claims(stage="prepare", limit=1):
        order += [mine[held.id] for held in claimed if held.id in mine]
        for held in claimed:
            ledger.fail(held, {"code": "seen", "detail": "Only looked at."}, retryable=False)
    assert order[:3] == ["urgent"] * 3
    assert (order.count("urgent"), order.count("normal"), order.count("low")) == (14, 3, 3)
    assert {"normal", "low"} < set(order[:8]), "while urgent ones are waiting"
    assert order[-1] == "low"


def test_a_poisonous_document_dies_alone(tenant: Tenant, collection: Collection, put: Put) -> None:
    """It kills whatever worker embeds it; the others of its batch are not blamed."""
    count = 40
    for number in range(count):
        put(collection, f"Harmless text number {number}.", source_uri=f"d{number}")
    poison = put(collection, "A drop of hemlock.", source_uri="poison").job
    environment = {"JOB_LEASE_SECONDS": "1", "JOB_MAX_ATTEMPTS": "3", "RAGSITE_FAKE_EMBED_POISON": "hemlock"}

    def open_jobs() -> int:
        with tenancy.scope(tenant.id):
            return IngestionJob.objects.filter(state__in=["queued", "running"]).count()

    started, running = 0, None
    deadline = time.monotonic() + 120
    while open_jobs():
        assert time.monotonic() < deadline, f"{open_jobs()} jobs are open after {started} workers"
        if running is None or running.process.poll() is not None:
            started += 1
            running = worker(DATA, "prepare", "embed", "default", name=f"taster{started}", **environment)
        tasks.sweep()
        time.sleep(0.5)
    assert running is not None
    running.kill()
    assert started > 3
    with tenancy.scope(tenant.id):
        dead = IngestionJob.objects.get(state="dead")
        assert (dead.id, dead.error["code"]) == (poison.id, "worker_lost")
        assert Document.objects.get(source_uri="poison").state == "failed"
        assert Document.objects.filter(state="live").count() == count


def test_too_much_waiting_is_refused(collection: Collection, put: Put, api_key: str) -> None:
    for number in range(3):
        put(collection, f"waiting {number}", source_uri=f"w{number}")
    with Server(DATA, JOBS_MAX_PENDING="3") as full, full.client(api_key) as client:
        body = {"collection": "docs", "source_uri": "late", "text": "One too many."}
        refusal = client.post(DOCUMENTS, json=body)
        refused(refusal, 503, "overloaded")
        assert int(refusal.headers["retry-after"]) > 0
        assert client.get(f"{DOCUMENTS}?source_uri=late").json()["results"] == []
        assert client.post(DOCUMENTS, json=body | {"mode": "write_through"}).status_code == 201, "it waits for nobody"


def test_dead_letters_are_tried_again_together(client: httpx.Client, collection: Collection, ingest: Put) -> None:
    broken = [
        ingest(collection, b"%PDF-1.4 " + str(n).encode(), media_type="application/pdf", source_uri=f"p{n}").job
        for n in range(3)
    ]
    other = ingest(collection, " \n ", source_uri="blank").job
    assert {state_of(job) for job in (*broken, other)} == {"dead"}
    refused(client.post("/api/v1/jobs/retry", json={"collection": "nowhere"}), 422, "unknown_collection", "/collection")
    refused(client.post("/api/v1/jobs/retry", json={"state": "dead"}), 400, pointer="/state")
    answer = client.post("/api/v1/jobs/retry", json={"collection": "docs", "code": "corrupt"})
    assert (answer.status_code, answer.json()) == (200, {"retried": 3, "left": 0})
    assert [state_of(job) for job in (*broken, other)] == ["queued"] * 3 + ["dead"]
    assert client.post("/api/v1/jobs/retry", json={}).json() == {"retried": 1, "left": 0}


def test_the_command_lists_and_retries(tenant: Tenant, collection: Collection, ingest: Put) -> None:
    job = ingest(collection, b"%PDF-1.4 broken", media_type="application/pdf", source_uri="broken.pdf").job
    assert job is not None

    def run(*arguments: str) -> str:
        said = io.StringIO()
        call_command("jobs", *arguments, "--tenant", tenant.slug, stdout=said)
        return said.getvalue()

    listed = run("list", "--state", "dead", "--collection", "docs")
    assert str(job.id) in listed and "corrupt" in listed and listed.count("\n") == 1
    assert run("retry", "--code", "too_large") == "0 queued again\n"
    assert run("retry") == "1 queued again\n"
    assert state_of(job) == "queued"


def test_old_ended_jobs_are_forgotten(tenant: Tenant, collection: Collection, ingest: Put, put: Put) -> None:
    old = ingest(collection, "old news", source_uri="old").job
    dead = ingest(collection, b"%PDF-1.4 x", media_type="application/pdf", source_uri="dead").job
    new = ingest(collection, "fresh news", source_uri="new").job
    waiting = put(collection, "still waiting", source_uri="open").job
    assert old and dead and new and waiting
    with tenancy.scope(tenant.id):
        long_ago = timezone.now() - timedelta(days=8)
        assert IngestionJob.objects.filter(id__in=[old.id, dead.id]).update(finished_at=long_ago) == 2
    assert ledger.forget() >= 2
    assert ledger.forget() == 0, "a second beat finds nothing to do"
    with tenancy.scope(tenant.id):
        assert set(IngestionJob.objects.values_list("id", flat=True)) == {new.id, waiting.id}
        assert Document.objects.get(source_uri="dead").state == "failed", "the document still says what went wrong"


def test_two_beats_do_no_harm(collection: Collection, put: Put) -> None:
    """Ticks only wake and remove: twice is once."""
    job = put(collection, "woken twice").job
    assert job is not None
    for _ in range(2):
        tasks.sweep()
        tasks.forget_ended()
    prepare.drain(job_id=job.id)
    embed.drain(job_id=job.id)
    assert state_of(job) == "done"
