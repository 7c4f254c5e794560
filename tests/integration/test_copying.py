"""`manage.py copy-from`: an installation that goes on serving is moved into another database, by a process that may be
killed. From the tests' PostgreSQL to another number of partitions and, with CITUS_DATABASE_URL, to a cluster."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from django.db import connection

from apps.access import keys, tenancy
from apps.access.models import Tenant
from apps.documents import collections, remove, second_space, spaces, vector_index
from apps.documents.accept import Accepted
from apps.documents.models import Collection
from ragsite.embedded import paths
from tests.conftest import DATA, make_collection
from tests.support.asking import ask
from tests.support.moving import SETTING, SOURCE, WRITING, Target
from tests.support.processes import Server, wait_for

Put = Callable[..., Accepted]
COLLECTIONS = "SELECT 1 FROM documents_collection WHERE tenant_id = current_setting('ragsite.tenant')::uuid"
WORDS = ("harbour", "lantern", "granite", "meadow")
PLAIN = 12_000  # documents beside the others, so that there are several parts to copy


class Writer:
    """Writes documents over HTTP until it is told that nothing can be written."""

    def __init__(self, client: httpx.Client, collection: Collection) -> None:
        self.client, self.collection = client, collection
        self.accepted: dict[str, tuple[str, int]] = {}
        self.end: dict[str, Any] = {}
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._write)

    def __enter__(self) -> Writer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()

    def _write(self) -> None:
        number = 0
        while not self.stopped.is_set():
            number += 1
            uri = f"written-{number % 40}"
            body = {"collection": self.collection.slug, "source_uri": uri, "text": f"The lantern of writer {number}."}
            try:
                got = self.client.post("/api/v1/documents", json=body | {"version": number})
            except httpx.HTTPError:
                continue
            if got.status_code in (200, 201, 202):
                self.accepted[uri] = (got.json()["id"], number)
            elif got.json()["code"] == "read_only":
                self.end = got.json()
                return
            else:  # its session was ended under it
                assert got.json()["code"] == "database_unavailable", got.text


def _plain(collection: Collection) -> None:
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO documents_document (id, tenant_id, collection_id, source_uri, title, metadata, version,"
            " content_sha256, media_type, state, created_at, updated_at)"
            " SELECT gen_random_uuid(), %s, %s, 'plain-' || n, '', '{}', 1, '', 'text/plain', 'pending', now(), now()"
            " FROM generate_series(1, %s) n",
            [collection.tenant_id, collection.id, PLAIN],
        )


def _history(collection: Collection, ingest: Put) -> None:
    """Documents with versions, one that is deleted and one that is erased."""
    for number in range(12):
        ingest(collection, f"The {WORDS[number % 4]} stands at gate {number}.", source_uri=f"n{number}")
    for number in range(4):
        ingest(collection, f"The {WORDS[number % 4]} was moved to pier {number}.", source_uri=f"n{number}")
    gone = ingest(collection, "The meadow is deleted.", source_uri="deleted").document
    remove.delete(tenant_id=collection.tenant_id, document_id=gone.id)
    gone = ingest(collection, "The meadow is a secret.", source_uri="erased").document
    remove.delete(tenant_id=collection.tenant_id, document_id=gone.id, erase=True)


def _found(client: httpx.Client, collection: str, words: str, mode: str) -> list[tuple[Any, ...]]:
    query = {"query": words, "collections": [collection], "mode": mode, "k": 5}
    got = client.post("/api/v1/search", json=query)
    assert got.status_code == 200, got.text
    return [(hit["document_id"], hit["version"], hit["text"], hit["start"]) for hit in got.json()["results"]]


def _everything(client: httpx.Client, collection: str) -> list[Any]:
    return [
        _found(client, collection, f"the {word}", mode) for word in WORDS for mode in ("dense", "lexical", "hybrid")
    ]


def test_an_installation_moves_while_it_is_written_to_and_loses_nothing(
    target: Target, tenant: Tenant, other_tenant: Tenant, web: Server, ingest: Put, put: Put
) -> None:
    mine, others = make_collection(tenant), make_collection(other_tenant, slug="others")
    for collection in (mine, others):
        _history(collection, ingest)
    second = spaces.create(slug=f"moved-{uuid4().hex[:8]}", backend="fake", model="fake", dimensions=48)
    with tenancy.scope(tenant.id):
        [build] = second_space.begin(space=second, slugs=["docs"])
    assert second_space.work(tenant_id=tenant.id, build_id=build.id) and second_space.finish(second)
    waiting = put(mine, "The granite waits for its worker.", source_uri="waiting").document
    _plain(others)
    key = keys.create_key(tenant_id=tenant.id, name="moving", scopes=("read", "write", "admin"))[1]
    foreign = keys.create_key(tenant_id=other_tenant.id, name="moving", scopes=("read",))[1]
    with web.client(key) as client, web.client(foreign) as stranger:
        answer = ask(client, "Where does the harbour stand?", collections=["docs"])
        with Writer(client, mine) as writer:
            # Killed when the first part is there and others are not.
            with target.begin_copy("copy-killed") as killed:
                wait_for(lambda: target.ask("SELECT 1 FROM documents_document LIMIT 1"), what="the first part")
                killed.kill()
            mark = target.ask("SELECT obj_description('django_migrations'::regclass)")[0][0]
            assert '"compared": null' in mark and target.unwalled
            said = target.copy()
            assert not target.unwalled
            written = len(writer.accepted)
            target.copy()
            wait_for(lambda: len(writer.accepted) > written or len(writer.accepted) == 40, what="writes go on")
            assert not target.rows, "the owner is behind the wall again"
            said = target.copy("--final")
            assert "nobody could write for the last" in said
            wait_for(lambda: writer.end, what="the writer to be told")
        refused = client.delete(f"/api/v1/documents/{waiting.id}")
        assert (refused.status_code, refused.json()["code"]) == (503, "read_only")
        before = [_everything(client, "docs"), _everything(stranger, "others")]
        assert any(found for found in before[0]) and any(found for found in before[1])
    assert "differ" not in target.copy("--verify")

    for uri, (document, version) in writer.accepted.items():
        found = target.ask(f"SELECT version FROM documents_document WHERE id = '{document}'", tenant.id)
        assert found and found[0][0] >= version, uri
    with Server(DATA, **target.environment) as there, there.client(key) as client, there.client(foreign) as stranger:
        assert [_everything(client, "docs"), _everything(stranger, "others")] == before
        assert client.get(f"/api/v1/answers/{answer['id']}/verify").json()["verified"]
        assert stranger.get(f"/api/v1/documents/{waiting.id}").status_code == 404
        # What waited for a worker there gets one here, and so do new writes.
        assert client.get(f"/api/v1/documents/{waiting.id}").json()["state"] == "pending"
        drained = "from apps.documents import embed, prepare\nwhile prepare.drain() + embed.drain(): pass"
        done = target.manage("shell", "-c", drained)
        assert done.returncode == 0, done.stderr
        assert _found(client, "docs", "granite waits for its worker", "hybrid")[0][0] == str(waiting.id)
        new = {
            "collection": "docs",
            "source_uri": "new",
            "text": "A lantern of the new house.",
            "mode": "write_through",
        }
        assert client.post("/api/v1/documents", json=new).json()["state"] == "live"


def test_what_is_not_the_same_is_named_and_can_be_repaired(target: Target, tenant: Tenant, ingest: Put) -> None:
    collection = make_collection(tenant)
    changed = ingest(collection, "The lantern burns.", source_uri="changed").document
    other = ingest(collection, "The lantern is out.", source_uri="other").document
    target.copy("--final")
    target.ask(f"UPDATE documents_chunk SET text = 'It does not.' WHERE document_id = '{changed.id}'", tenant.id)
    target.ask(f"DELETE FROM embedding_default WHERE document_id = '{other.id}'", tenant.id)
    said = target.copy("--verify", refused="they are not the same")
    for table, document in (("documents_chunk", changed), ("embedding_default", other)):
        assert re.search(rf"{table}: \d+ rows, 1 keys differ: {document.id}", said)
    target.copy(refused="everything was handed over")
    target.copy("--reopen", refused="was written to")
    target.copy("--reopen", "--discard-target")
    assert "2 rows copied, 1 deleted" in target.copy()
    target.copy("--verify")


def test_a_second_round_finds_what_the_first_could_not(target: Target, tenant: Tenant, ingest: Put) -> None:
    """Nothing of a row that was deleted tells when; and a transaction may have been under way."""
    collection, kept = make_collection(tenant, slug="passing"), make_collection(tenant, slug="staying")
    document = ingest(collection, "The meadow will be gone.", source_uri="n").document
    late = ingest(kept, "The granite stays.", source_uri="n").document
    lists = spaces.create(slug=f"lists-{uuid4().hex[:8]}", backend="fake", dimensions=8, index_method="ivfflat")
    ingest(make_collection(tenant, slug="in-lists", space=lists.slug), "The harbour.", source_uri="n")
    vector_index.index_concurrently(lists)
    vector_index.set_lists(lists, 7)  # of other partitions than those here
    title = f"UPDATE documents_document SET title = 'late' WHERE id = '{late.id}'"
    with psycopg.connect(SOURCE) as session:
        session.execute(title)  # type: ignore[arg-type]
        target.copy()
        session.commit()
    assert target.ask("SELECT 1 FROM documents_chunk", tenant.id) and len(target.ask(COLLECTIONS, tenant.id)) == 3
    with tenancy.scope(tenant.id):
        collections.remove(collection=collection)
        # Its name is taken by another at once.
        collections.create(tenant_id=tenant.id, slug="passing", name="Another")
    spaces.set_state(lists, "retired")  # changes its row
    target.copy()
    assert target.ask(f"SELECT title FROM documents_document WHERE id = '{late.id}'", tenant.id) == [("late",)]
    for table in ("documents_chunk", "documents_blob", "embedding_default"):
        rows = target.ask(f"SELECT document_id FROM {table}", tenant.id)
        assert rows and (document.id,) not in rows
    row = f"SELECT index_parameters->'lists', state FROM documents_embeddingspace WHERE slug = '{lists.slug}'"
    assert target.ask(row) == [(1, "retired")]
    target.copy("--verify")


def test_ctrl_c_ends_a_round_whose_threads_wait(target: Target, collection: Collection, ingest: Put) -> None:
    ingest(collection, "The harbour is here.", source_uri="old")
    target.copy()
    ingest(collection, "The lantern is new.", source_uri="new")
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'documents_document'::regclass"
    with psycopg.connect(target.url, options=WRITING) as session:
        session.execute("LOCK TABLE documents_document IN ACCESS EXCLUSIVE MODE")
        with target.begin_copy("interrupted") as copy:
            wait_for(lambda: target.ask(waits), what="the round to wait for the lock")
            copy.process.send_signal(signal.SIGINT)
            assert copy.process.wait(30) != 0
        session.rollback()
    target.copy("--final")
    target.copy("--verify")


@pytest.mark.parametrize("restored", [{"started": "978307200.000000"}, {"compared": 2**30}])
def test_everything_is_compared_anew_after_a_restore_of_the_source(
    target: Target, collection: Collection, ingest: Put, restored: dict[str, Any]
) -> None:
    """Which the source's server shows by when it was started, or by transactions that it has not had yet."""
    document = ingest(collection, "The harbour is here.").document
    target.copy()
    # As if the source had been here once.
    target.ask(f"UPDATE documents_document SET title = 'lost' WHERE id = '{document.id}'", collection.tenant_id)
    assert "0 rows copied" in target.copy()
    mark = json.loads(target.ask("SELECT obj_description('django_migrations'::regclass)")[0][0])
    assert mark.keys() >= restored.keys()
    target.ask(f"COMMENT ON TABLE django_migrations IS '{json.dumps(mark | restored)}'")
    target.copy("--final")
    target.copy("--verify")


def test_it_refuses_what_would_do_harm(target: Target, tenant: Tenant, collection: Collection, ingest: Put) -> None:
    owner = paths.owner_url(DATA)
    target.copy(refused="sees no rows", source=owner)
    ingest(collection, "The harbour is here.")
    with psycopg.connect(SOURCE, autocommit=True) as session:
        try:
            session.execute("ALTER ROLE ragsite_owner BYPASSRLS")
            target.copy("--final", refused="pg_read_all_stats", source=owner)
            session.execute("GRANT pg_read_all_stats, pg_signal_backend TO ragsite_owner")
            target.copy("--final", source=owner)
            assert session.execute(SETTING).fetchone() == ("default_transaction_read_only=on",)
            target.copy("--reopen", source=owner)
            assert session.execute(SETTING).fetchone() is None
        finally:
            session.execute("ALTER ROLE ragsite_owner NOBYPASSRLS")
            session.execute("REVOKE pg_read_all_stats, pg_signal_backend FROM ragsite_owner")
    with psycopg.connect(target.url.replace("ragsite_owner", "ragsite_app")):
        target.copy(refused="stop it")
    target.ask("DELETE FROM django_migrations WHERE app = 'generation'")
    target.copy(refused="migrated alike")
    target.ask("INSERT INTO django_migrations (app, name, applied) VALUES ('generation', '0001_initial', now())")
    target.ask("COMMENT ON TABLE django_migrations IS NULL")
    target.copy(refused="not empty")
    assert not target.unwalled
