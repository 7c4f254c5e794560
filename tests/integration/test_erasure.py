"""Erasing (invariant I8): what remains is a tombstone without content, whatever else is going on."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connections
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import embed, erasure, prepare, remove
from apps.documents.accept import Accepted
from apps.documents.engines import engine_for
from apps.documents.models import Collection, Document, EmbeddingSpace
from apps.generation import reports
from tests.support.asking import ask
from tests.support.refusals import DOCUMENTS, refused

Put = Callable[..., Accepted]
SECRET = "The vault stands behind the seventh painting."


def everywhere(tenant: Tenant, words: str) -> dict[str, int]:
    """Rows of any table that the tenant can see whose text form holds these words."""
    tables = [model._meta.db_table for model in apps.get_models() if model._meta.managed]
    tables += [space.table for space in EmbeddingSpace.objects.all()]
    found = {}
    with tenancy.scope(tenant.id), connections["default"].cursor() as cursor:
        for table in tables:
            cursor.execute(f"SELECT count(*) FROM {table} t WHERE t::text ILIKE %s", [f"%{words}%"])
            if count := cursor.fetchone()[0]:
                found[table] = count
    return found


def verify(tenant: Tenant, document_id: object) -> str:
    said = io.StringIO()
    call_command("verify-erasure", str(document_id), "--tenant", tenant.slug, stdout=said)
    return said.getvalue()


def test_nothing_is_left_but_a_tombstone(
    client: httpx.Client, tenant: Tenant, collection: Collection, ingest: Put, put: Put
) -> None:
    ingest(collection, "An older text about the vault.", source_uri="vault.txt", title="Vault", metadata={"a": "vault"})
    document = ingest(collection, SECRET, source_uri="vault.txt").document
    put(collection, SECRET + " A pending version.", source_uri="vault.txt")
    kept = ingest(collection, "Paintings hang in the hall.", source_uri="hall.txt").document
    answer = ask(client, "Where does the vault stand?")
    assert "seventh painting" in answer["answer"]
    said = {"rating": "down", "comment": "Is it not in the vault?", "tags": ["vault"]}
    for body in (answer, client.post(f"/api/v1/answers/{answer['id']}/replay").json()):
        assert client.post(f"/api/v1/answers/{body['id']}/feedback", json=said).status_code == 201
    today = timezone.now().date()
    assert reports.write(tenant_id=tenant.id, week=today - timedelta(days=today.weekday()))
    before = everywhere(tenant, "vault")
    assert {"documents_document", "documents_chunk", "documents_documentversion"} <= set(before)
    assert (before["generation_answer"], before["generation_feedback"]) == (2, 2)
    with tenancy.scope(tenant.id):
        traced = erasure.traces(document.id)
        assert [traced[f"generation_{name}"] for name in ("answer", "feedback", "lowanswer")] == [2, 2, 1]
    with pytest.raises(CommandError, match="not erased"):
        verify(tenant, document.id)

    path = f"{DOCUMENTS}/{document.id}"
    assert client.delete(path + "?erase=true").status_code == 204
    assert everywhere(tenant, "vault") == {}
    assert everywhere(tenant, str(document.id)) == {"documents_document": 1}
    said = verify(tenant, document.id)
    assert "no content" in said and "Backups" in said
    assert all(f"generation_{name}" in said for name in ("answer", "answersource", "feedback", "lowanswer"))
    assert "archive_mode is off" in said and "max_wal_size" in said
    waiting = re.search(r"(\d+) of these tables and partitions have not been vacuumed since", said)
    if engine_for(connections["default"]).name == "postgres":
        assert waiting and int(waiting[1]) > 0
    else:
        assert "autovacuum does in its time, on every node" in said
    assert client.post("/api/v1/search", json={"query": SECRET}).json()["results"][0]["document_id"] == str(kept.id)
    refused(client.get(f"/api/v1/answers/{answer['id']}"), 404)
    tombstone = client.get(path).json()
    assert (tombstone["state"], tombstone["title"], tombstone["metadata"]) == ("deleted", "", {})
    assert tombstone["source_uri"].startswith("erased:")
    assert client.get(path + "/versions").json()["results"] == []
    assert client.delete(path + "?erase=true").status_code == 204, "again: nothing to do"
    with tenancy.scope(tenant.id):
        counted = Collection.objects.get(id=collection.id)
        assert (counted.documents, counted.chunks) == (1, 1)


def test_late_events_about_an_erased_document_stay_stale(client: httpx.Client, collection: Collection) -> None:
    body = {"collection": "docs", "source_uri": "person/7", "text": "Somebody's file.", "mode": "write_through"}
    made = client.post(DOCUMENTS, json=body | {"version": 5}).json()
    assert client.delete(f"{DOCUMENTS}/{made['id']}?erase=true&version=6").status_code == 204
    for version in (4, 5, 6):
        refused(client.post(DOCUMENTS, json=body | {"version": version}), 409, "stale_version")
    revived = client.post(DOCUMENTS, json=body | {"version": 7, "text": "A new file."})
    assert revived.status_code == 201 and revived.json()["id"] == made["id"]
    document = client.get(f"{DOCUMENTS}/{made['id']}").json()
    assert (document["source_uri"], document["live_version"]) == ("person/7", 7)
    assert [each["version"] for each in client.get(f"{DOCUMENTS}/{made['id']}/versions").json()["results"]] == [7]


def test_a_deleted_document_can_be_erased_later(client: httpx.Client, tenant: Tenant, collection: Collection) -> None:
    body = {"collection": "docs", "text": SECRET, "mode": "write_through"}
    made = client.post(DOCUMENTS, json=body).json()["id"]
    assert client.delete(f"{DOCUMENTS}/{made}").status_code == 204
    assert "documents_documentversion" in everywhere(tenant, "vault"), "a delete keeps the history"
    refused(client.delete(f"{DOCUMENTS}/{made}?erase=maybe"), 400, pointer="/erase")
    assert client.delete(f"{DOCUMENTS}/{made}?erase=true").status_code == 204
    assert everywhere(tenant, "vault") == {}
    refused(client.delete(f"{DOCUMENTS}/{uuid4()}?erase=true"), 404)


def test_work_under_way_brings_nothing_back(tenant: Tenant, collection: Collection, put: Put) -> None:
    """Erased while it is prepared and embedded, again and again."""
    for number in range(12):
        accepted = put(collection, SECRET + f" Draft {number}. " * 40, source_uri=f"draft{number}")
        assert accepted.job is not None
        job_id = accepted.job.id

        def work() -> None:
            try:
                prepare.drain(job_id=job_id)  # noqa: B023
                embed.drain(job_id=job_id)  # noqa: B023
            finally:
                connections.close_all()

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            remove.delete(tenant_id=tenant.id, document_id=accepted.document.id, erase=True)
            working.result()
        with tenancy.scope(tenant.id):
            assert set(erasure.traces(accepted.document.id).values()) == {0}
            assert Document.objects.get(id=accepted.document.id).erased_at is not None
    assert everywhere(tenant, "vault") == {}
