"""`manage.py copy-from --final` and `--reopen`: the source's writers are stopped for a while at most, whatever fails or
hangs, and only one of both takes writes. To another number of partitions and, with CITUS_DATABASE_URL, to a cluster."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import psycopg
import pytest

from apps.access import keys
from apps.access.models import Tenant
from apps.documents.accept import Accepted
from apps.documents.models import Collection
from ragsite.embedded import paths
from tests.conftest import DATA, make_collection
from tests.support.moving import SETTING, SOURCE, WRITING, Target
from tests.support.node import Node
from tests.support.processes import ROOT, Process, Server, wait_for
from tests.support.severed import Severed

Put = Callable[..., Accepted]
SEARCH_SECONDS = 3.0  # of a machine that does much else


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


def test_what_the_stop_waits_for_is_part_of_its_time(target: Target, collection: Collection, ingest: Put) -> None:
    """A search of the source, which may come to its end."""
    ingest(collection, "The harbour is here.")
    target.copy()
    with psycopg.connect(paths.owner_url(DATA)) as search, ThreadPoolExecutor(1) as pool:
        searched = pool.submit(search.execute, "SELECT pg_sleep(60)")
        target.copy("--final", "--max-stop-seconds", "2", refused="within 2 s")
        with pytest.raises(psycopg.errors.AdminShutdown):
            searched.result()
    with psycopg.connect(SOURCE) as session:
        assert session.execute(SETTING).fetchone() is None
    target.copy("--final")


def test_it_says_so_where_the_source_cannot_be_told_to_take_writes_again(
    target: Target, collection: Collection, ingest: Put, tmp_path: Path
) -> None:
    """The way to it is lost while its writers are stopped."""
    ingest(collection, "The harbour is here.")
    [directory] = parse_qs(urlsplit(SOURCE).query)["host"]
    way = tmp_path / f".s.PGSQL.{paths.PORT}"
    way.symlink_to(f"{directory}/{way.name}")
    lost = SOURCE.replace(quote(directory, safe=""), quote(str(tmp_path), safe=""))
    target.copy(source=lost)
    with (
        psycopg.connect(SOURCE, autocommit=True) as session,
        Process(DATA, "lost", "manage", "copy-from", lost, "--final", **target.environment) as final,
    ):
        wait_for(lambda: session.execute(SETTING).fetchone(), what="the writers to be stopped", every=0.005)
        os.killpg(final.process.pid, signal.SIGSTOP)
        way.unlink()
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ragsite copy-from'"
        session.execute(ended)
        os.killpg(final.process.pid, signal.SIGCONT)
        assert final.process.wait(60) == 1
        said = final.log.read_text()
        assert "takes no writes still" in said and "--reopen" in said and "Traceback" not in said, said
        assert session.execute(SETTING).fetchone() is not None
        target.copy("--reopen")
        assert session.execute(SETTING).fetchone() is None
