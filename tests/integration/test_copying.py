"""`manage.py copy-from`: an installation that goes on serving is moved into another database, by a process that may be
killed. From the tests' PostgreSQL to another number of partitions and, with CITUS_DATABASE_URL, to a cluster."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from django.db import connection, connections
from psycopg import sql

from apps.access import keys, tenancy
from apps.access.models import Tenant
from apps.documents import collections, partitions, remove, second_space, spaces, vector_index
from apps.documents.accept import Accepted
from apps.documents.engines import engine_for
from apps.documents.models import Collection
from ragsite.embedded import paths
from ragsite.embedded.bootstrap import bootstrap
from tests.conftest import DATA, make_collection
from tests.support.asking import ask
from tests.support.node import Node
from tests.support.processes import ROOT, Process, Server, wait_for
from tests.support.severed import Severed

Put = Callable[..., Accepted]
CLUSTER = os.environ.get("CITUS_DATABASE_URL", "")
SOURCE = paths.superuser_url(DATA).replace("/postgres?", f"/{paths.DATABASE}?")
COLLECTIONS = "SELECT 1 FROM documents_collection WHERE tenant_id = current_setting('ragsite.tenant')::uuid"
SETTING = (
    "SELECT each FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase AND datname = 'ragsite',"
    " unnest(setconfig) AS each WHERE starts_with(each, 'default_transaction_read_only=')"
)
WRITING = "-c default_transaction_read_only=off"  # also where only the copying may
WORDS = ("harbour", "lantern", "granite", "meadow")
SEARCH_SECONDS = 3.0  # of a machine that does much else
PLAIN = 12_000  # documents beside the others, so that there are several parts to copy


class Target:
    """The database that is copied to, and the product on it."""

    def __init__(self, url: str, **environment: str) -> None:
        self.url, self.environment = url, environment | {"DATABASE_URL": url}
        self.clustered = url == CLUSTER

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        return subprocess.run(command, env=os.environ | self.environment, cwd=ROOT, capture_output=True, text=True)

    def copy(self, *options: str, refused: str = "", source: str = SOURCE) -> str:
        """What it says; `refused` is part of why it must not be done."""
        done = self.manage("copy-from", source, *options)
        said = done.stdout + done.stderr
        assert (done.returncode == 0) == (not refused) and refused in said, said
        return said

    def begin_copy(self, name: str) -> Process:
        return Process(DATA, name, "manage", "copy-from", SOURCE, "--streams", "1", **self.environment)

    def ask(self, statement: str, tenant: UUID | None = None) -> list[tuple[Any, ...]]:
        """As the owner, who is behind the wall."""
        with psycopg.connect(self.url, options=WRITING) as session:
            session.execute(tenancy.REACH_THE_SHARDS)
            session.execute(sql.SQL("SET LOCAL ragsite.tenant = {}").format(str(tenant or "")))
            found = session.execute(statement)  # type: ignore[arg-type]
            return found.fetchall() if found.description else []

    @property
    def unwalled(self) -> set[str]:
        """Tables whose wall the owner may look over and should not, or the other way round (ADR 17)."""
        tables = self.ask(
            "SELECT relname, relforcerowsecurity FROM pg_class WHERE relrowsecurity AND relkind IN ('r', 'p')"
        )
        return {
            name
            for name, forced in tables
            if forced == (self.clustered and (name in partitions.TABLES or name.startswith("embedding_")))
        }

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """What the owner sees without a tenant."""
        return self.ask("SELECT 1 FROM access_tenant LIMIT 1")


@pytest.fixture(
    params=[
        "partitions",
        pytest.param(
            "citus", marks=[pytest.mark.citus, pytest.mark.skipif(not CLUSTER, reason="CITUS_DATABASE_URL is not set")]
        ),
    ]
)
def target(request: pytest.FixtureRequest, database: None) -> Iterator[Target]:
    """Migrated and empty. The source takes writes again after the test, whatever came of it."""
    if engine_for(connection).name != "postgres":
        pytest.skip("a cluster cannot be copied from")
    if request.param == "citus":
        found = Target(CLUSTER)
        _empty(CLUSTER)
    else:
        name = f"copy_{uuid4().hex[:8]}"
        bootstrap(paths.superuser_url(DATA), database=name)
        url = paths.owner_url(DATA).replace(f"/{paths.DATABASE}?", f"/{name}?")
        found = Target(url, PARTITIONS="3")  # the source has four
    found.environment["EMBEDDING_DIMENSIONS"] = "16"  # the source's first space has others
    done = found.manage("migrate", "--verbosity", "0")
    assert done.returncode == 0, done.stderr
    assert not found.unwalled
    yield found
    with psycopg.connect(SOURCE, autocommit=True) as session:
        session.execute("SET default_transaction_read_only = off")
        session.execute("ALTER DATABASE ragsite RESET default_transaction_read_only")
        session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> 'postgres'")
        if request.param != "citus":
            session.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]
    if request.param == "citus":
        with psycopg.connect(CLUSTER, autocommit=True, options=WRITING) as session:
            session.execute("SET citus.enable_ddl_propagation = off")
            session.execute(f"ALTER DATABASE {session.info.dbname} RESET default_transaction_read_only")  # type: ignore[arg-type]
    connections.close_all()


def _empty(url: str) -> None:
    """A database that its owner may have used before."""
    with psycopg.connect(url, autocommit=True) as session:
        mine = "relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
        named = session.execute(
            "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class"  # type: ignore[arg-type]
            f" WHERE {mine} AND pg_get_userbyid(relowner) = current_user"
        ).fetchone()
        if named and named[0]:
            session.execute(f"DROP TABLE {named[0]} CASCADE")
        own = (
            "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            " AND pg_get_userbyid(proowner) = current_user"
            " AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = pg_proc.oid AND d.deptype = 'e')"
        )
        for (function,) in session.execute(own).fetchall():
            session.execute(f"DROP FUNCTION {function}")


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


class Searcher:
    """Searches over HTTP all the while, from several clients; what went wrong, and how long the longest took."""

    def __init__(self, web: Server, key: str, expected: str) -> None:
        self.web, self.key, self.expected = web, key, expected
        self.answered = itertools.count()
        self.wrong: list[str] = []
        self.longest = 0.0
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._search, args=[number]) for number in range(3)]

    def __enter__(self) -> Searcher:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def _search(self, number: int) -> None:
        modes = itertools.cycle(("dense", "lexical", "hybrid"))
        with self.web.client(self.key) as client:
            while not self.stopped.is_set():
                at, began = next(self.answered), time.monotonic()
                got = client.post("/api/v1/search", json={"query": f"harbour {at}", "mode": next(modes), "k": 1})
                self.longest = max(self.longest, time.monotonic() - began)
                if got.status_code != 200 or self.expected not in got.text:
                    self.wrong.append(got.text)


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


def test_searches_of_the_source_go_on_while_its_writers_are_stopped(
    target: Target, collection: Collection, web: Server, api_key: str, ingest: Put
) -> None:
    ingest(collection, "The harbour is here.")
    target.copy()
    with Searcher(web, api_key, "The harbour is here.") as searcher:
        wait_for(lambda: next(searcher.answered) > 100, what="a hundred searches")
        said = target.copy("--final")
        before = next(searcher.answered)
        wait_for(lambda: next(searcher.answered) > before + 100, what="a hundred more")
    # One that takes its session from the pool in the moment in which that is ended.
    assert len(searcher.wrong) <= 2, (searcher.wrong, said)
    assert searcher.longest < SEARCH_SECONDS


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


def test_only_one_of_both_ever_takes_writes(target: Target, tenant: Tenant, ingest: Put) -> None:
    """What the copy has accepted is not deleted by a later round, unless an operator says so."""
    collection = make_collection(tenant)
    ingest(collection, "The lantern is old.", source_uri="old")
    key = keys.create_key(tenant_id=tenant.id, name="moving", scopes=("read", "write"))[1]
    body = {"collection": "docs", "text": "The lantern is new."}

    def reopened() -> bool:
        with psycopg.connect(SOURCE) as session:
            return session.execute(SETTING).fetchone() is None

    target.copy()
    with Server(DATA, **target.environment) as there, there.client(key) as client:
        refused = client.post("/api/v1/documents", json=body | {"source_uri": "early"})
        assert (refused.status_code, refused.json()["code"]) == (503, "read_only")
    target.copy("--final")
    target.copy("--reopen")
    assert reopened()
    target.copy("--final")
    with Server(DATA, **target.environment) as there, there.client(key) as client:
        accepted = client.post("/api/v1/documents", json=body | {"source_uri": "new"})
        assert accepted.status_code == 202, accepted.text
        target.copy("--reopen", refused="stop it")
        assert not reopened()
    assert "documents_document" in target.copy("--reopen", refused="was written to")
    assert not reopened()
    with Server(DATA, **target.environment) as there, there.client(key) as client:
        assert client.get(f"/api/v1/documents/{accepted.json()['id']}").status_code == 200
        assert client.post("/api/v1/documents", json=body | {"source_uri": "newer"}).status_code == 202
    target.copy("--reopen", "--discard-target")
    assert reopened()
    target.copy()
    target.copy("--verify")
    mine = f"SELECT source_uri FROM documents_document WHERE tenant_id = '{tenant.id}'"
    assert target.ask(mine, tenant.id) == [("old",)]


def test_the_writers_go_on_where_the_last_round_cannot_tell_of_itself(
    target: Target, collection: Collection, ingest: Put
) -> None:
    ingest(collection, "The harbour is here.")
    target.copy()
    command = [sys.executable, str(ROOT / "manage.py"), "copy-from", SOURCE, "--final"]
    environment = os.environ | target.environment
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as final:
        assert final.stdout
        assert b"rows copied" in final.stdout.readline()
        final.stdout.close()  # as `| head -1` does
        final.stdout = None
        final.communicate()
    assert final.returncode != 0
    with psycopg.connect(SOURCE) as session:
        assert session.execute(SETTING).fetchone() is None
    target.copy("--final")


@contextmanager
def _held_up(target: Target, how: str) -> Iterator[None]:
    """The target does not get on: a table is locked, or a worker or the coordinator of the cluster hangs."""
    if how == "lock":
        with psycopg.connect(target.url, options=WRITING) as session:
            session.execute("LOCK TABLE documents_document IN ACCESS EXCLUSIVE MODE")
            yield
        return
    of = f"(groupid = 0) = {how == 'coordinator'}"
    node = Node(*target.ask(f"SELECT nodename, nodeport FROM pg_dist_node WHERE {of} LIMIT 1")[0])
    if node.pid is None:
        pytest.skip("the cluster's nodes are not on this machine")
    node.hang()
    try:
        yield
    finally:
        node.go_on()


@pytest.mark.parametrize("how", ["lock", "worker", "coordinator"])
def test_the_writers_go_on_when_the_target_does_not_get_on(
    target: Target, collection: Collection, client: httpx.Client, ingest: Put, how: str
) -> None:
    if how != "lock" and not target.clustered:
        pytest.skip("one Postgres has no nodes")
    ingest(collection, "The harbour is here.", source_uri="old")
    target.copy()
    target.copy("--max-stop-seconds", "9", refused="goes with --final")
    target.copy("--final", "--max-stop-seconds", "0", refused="more than 0")
    command = ("manage", "copy-from", SOURCE, "--final", "--max-stop-seconds", "3")
    new = {"collection": "docs", "source_uri": "new", "text": "The lantern is new."}
    with (
        psycopg.connect(SOURCE, autocommit=True) as session,
        Process(DATA, "held-up", *command, **target.environment) as final,
    ):
        wait_for(lambda: session.execute(SETTING).fetchone(), what="the writers to be stopped", every=0.005)
        os.killpg(final.process.pid, signal.SIGSTOP)  # so that it is held up in time
        with _held_up(target, how):
            os.killpg(final.process.pid, signal.SIGCONT)
            assert final.process.wait(60) == 1, "it waits for ever"
            said = final.log.read_text()
            assert "the source takes writes again" in said and "within 3 s" in said and "Traceback" not in said, said
            assert session.execute(SETTING).fetchone() is None
            assert client.post("/api/v1/documents", json=new).status_code == 202
    target.copy("--final")
    assert not target.unwalled
    target.copy("--verify")
    mine = f"SELECT source_uri FROM documents_document WHERE tenant_id = '{collection.tenant_id}' ORDER BY 1"
    assert target.ask(mine, collection.tenant_id) == [("new",), ("old",)]


@pytest.mark.parametrize("heard", [True, False])
def test_whoever_takes_writes_is_one_where_the_last_answer_is_lost(
    target: Target, collection: Collection, ingest: Put, heard: bool
) -> None:
    if target.clustered:
        pytest.skip("its coordinator is a PostgreSQL as well, and has no socket that a test may stand before")
    ingest(collection, "The harbour is here.")
    found = urlsplit(target.url)
    [directory] = parse_qs(found.query)["host"]
    way = Severed(f"{directory}/.s.PGSQL.5432", heard=heard)
    try:
        severed = Target(target.url.replace(quote(directory, safe=""), quote(way.host, safe="")), **target.environment)
        severed.environment["DATABASE_URL"] = severed.url
        said = severed.copy("--final", refused="" if heard else "the source takes writes again")
    finally:
        way.close()
    with psycopg.connect(SOURCE) as session, psycopg.connect(target.url) as there:
        closed = [
            bool(each.execute(SETTING.replace("'ragsite'", "current_database()")).fetchone())
            for each in (session, there)
        ]
    assert closed == ([True, False] if heard else [False, True]), said
    if not heard:
        target.copy("--final")
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


def test_the_last_round_is_refused_where_a_role_would_go_on_writing(
    target: Target, collection: Collection, ingest: Put
) -> None:
    ingest(collection, "The harbour is here.")
    with psycopg.connect(SOURCE, autocommit=True) as session:
        for scope in ("", "IN DATABASE ragsite"):
            session.execute(f"ALTER ROLE ragsite_app {scope} SET default_transaction_read_only = off")  # type: ignore[arg-type]
            try:
                target.copy("--final", refused="ragsite_app")
                taken = session.execute(SETTING + " AND setrole = 0").fetchone()
                assert taken is None
            finally:
                session.execute(f"ALTER ROLE ragsite_app {scope} RESET default_transaction_read_only")  # type: ignore[arg-type]
    target.copy("--final")


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
