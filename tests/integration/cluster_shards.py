"""`manage.py shards` on a real Citus cluster: a node more, and shards moved to it while documents are written and
searched. Run by test_citus.py; not by itself.

Adding a node takes a server that is none yet (CITUS_SPARE_NODE, host:port) and a superuser's URL of the coordinator
(CITUS_SUPERUSER_URL).
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections

from apps.access import tenancy
from apps.documents import shards
from apps.documents.engines import engine_for
from apps.documents.models import Collection, Document, IngestionJob
from tests.conftest import DATA
from tests.support.processes import ROOT, Process, Server, wait_for, worker

SPARE = os.environ.get("CITUS_SPARE_NODE", "")
SUPERUSER = os.environ.get("CITUS_SUPERUSER_URL", "")
KNOWN = 60


@pytest.fixture(autouse=True)
def _cluster(database: None) -> None:
    assert engine_for(connection).name == "citus", "DATABASE_URL is no Citus cluster"


def told(*arguments: str) -> str:
    out = io.StringIO()
    call_command("shards", *arguments, stdout=out)
    return out.getvalue()


def test_status_shows_every_node_with_its_share() -> None:
    nodes = json.loads(told("status", "--json"))["nodes"]
    assert nodes[0]["is_coordinator"] and len(nodes) > 2
    workers = [node for node in nodes if not node["is_coordinator"]]
    assert sum(node["shards"] for node in workers) == engine_for(connection).graphs(connection)
    assert all(node["bytes"] > 0 and node["vector"] and not node["problem"] for node in workers)
    lines = told("status").splitlines()
    assert lines[0].split()[0] == "node" and f"{workers[0]['host']}:{workers[0]['port']}" in lines[2]


def test_nothing_is_moved_where_the_owner_would_copy_no_rows() -> None:
    with connections["owner"].cursor() as cursor:
        cursor.execute("ALTER TABLE documents_chunk FORCE ROW LEVEL SECURITY")
        try:
            with pytest.raises(CommandError, match="wall of documents_chunk"):
                told("rebalance")
        finally:
            cursor.execute("ALTER TABLE documents_chunk NO FORCE ROW LEVEL SECURITY")


def test_bad_calls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_SUPERUSER_URL", raising=False)
    for arguments, said in (
        (("add-node", "nowhere"), "no HOST:PORT"),
        (("add-node", "127.0.0.1:1"), "--superuser-url"),
        (("add-node", "127.0.0.1:1", "--superuser-url", os.environ["DATABASE_URL"]), "only a superuser"),
        (("add-node", "127.0.0.1:1", "--superuser-url", "postgresql://postgres:pa ss@host"), "cannot be read"),
        (("rebalance", "--stop"), "no ongoing rebalance"),
    ):
        with pytest.raises(CommandError, match=said) as refused:
            told(*arguments)
        assert "pa ss" not in str(refused.value)


def test_a_coordinator_that_is_away_is_told_in_a_sentence() -> None:
    url = re.sub(r":\d+/", ":1/", os.environ["DATABASE_URL"])
    command = [sys.executable, str(ROOT / "manage.py"), "shards", "status"]
    done = subprocess.run(command, env=os.environ | {"DATABASE_URL": url}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("CommandError:") and "Traceback" not in done.stderr


def test_a_node_that_is_one_already_is_not_called_empty() -> None:
    if not SUPERUSER:
        pytest.skip("CITUS_SUPERUSER_URL is not set")
    coordinator, worker, *_ = shards.status()
    with pytest.raises(CommandError, match="is the coordinator"):
        told("add-node", f"{coordinator.host}:{coordinator.port}", "--superuser-url", SUPERUSER)
    said = told("add-node", f"{worker.host}:{worker.port}", "--superuser-url", SUPERUSER)
    assert f"has {worker.shards} shards" in said and worker.shards


@contextmanager
def threads(*works: Callable[[threading.Event], None]) -> Iterator[threading.Event]:
    """Each in a thread until the end of the block, and what they raised."""
    over, wrong = threading.Event(), []

    def run(work: Callable[[threading.Event], None]) -> None:
        try:
            work(over)
        except BaseException as error:
            wrong.append(error)

    running = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in running:
        thread.start()
    try:
        yield over
    finally:
        over.set()
        for thread in running:
            thread.join()
    assert not wrong, wrong


@pytest.fixture
def spare(database: None) -> Iterator[str]:
    if not (SPARE and SUPERUSER):
        pytest.skip("CITUS_SPARE_NODE and CITUS_SUPERUSER_URL are not set: no server to add to the cluster")
    yield SPARE
    host, port = SPARE.rsplit(":", 1)
    with psycopg.connect(SUPERUSER, autocommit=True) as session:
        if session.execute("SELECT 1 FROM pg_dist_node WHERE nodeport = %s", [int(port)]).fetchone():
            session.execute("SELECT citus_drain_node(%s, %s)", [host, int(port)])
            session.execute("SELECT citus_remove_node(%s, %s)", [host, int(port)])


def rows() -> dict[str, int]:
    """Of every sharded table, as the owner sees them all."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_dist_partition JOIN pg_class c ON c.oid = logicalrelid WHERE partmethod = 'h'"
        )
        found = {}
        for (name,) in cursor.fetchall():
            cursor.execute(f'SELECT count(*) FROM "{name}"')
            found[name] = cursor.fetchone()[0]
    return found


def _end_a_waiting_session() -> bool:
    """As a node does that goes away: the moves go on."""
    waiting = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND datname = current_database() AND query LIKE '%citus_rebalance_status()%'"
        " AND EXISTS (SELECT 1 FROM citus_rebalance_status() WHERE state = 'running')"
    )
    with psycopg.connect(SUPERUSER, autocommit=True) as session:
        return bool(session.execute(waiting).fetchall())


def test_a_node_is_added_and_takes_its_share_while_documents_are_written_and_searched(
    collection: Collection, api_key: str, spare: str
) -> None:
    with (
        Server(DATA, RESULT_CACHE_MB="0") as server,
        worker(DATA, "prepare", "default", name="shards-prepare", pool="threads", SWEEP_SECONDS="1"),
        worker(DATA, "embed", name="shards-embed"),
        server.client(api_key) as client,
    ):
        versions = {f"d{number}": 1 for number in range(KNOWN)}
        seen: dict[str, int] = {}
        searches = [0]

        def send(uri: str, version: int, client: httpx.Client = client) -> None:
            text = f"The pilot of {uri} speaks of harbour{uri} in version {version}."
            body = {"collection": collection.slug, "source_uri": uri, "version": version, "text": text}
            assert client.post("/api/v1/documents", json=body).status_code == 202

        def live() -> dict[str, int]:
            with tenancy.scope(collection.tenant_id):
                return dict(
                    Document.objects.filter(live_version__isnull=False).values_list("source_uri", "live_version")
                )

        for uri in versions:
            send(uri, 1)
        wait_for(lambda: len(live()) == KNOWN, seconds=120, what="the first versions to be live")
        seen |= live()

        def write(over: threading.Event) -> None:
            with server.client(api_key) as mine:
                number = KNOWN
                while not over.wait(0.05):
                    old = f"d{number % KNOWN}"
                    send(old, versions[old] + 1, mine)
                    versions[old] += 1
                    send(f"d{number}", 1, mine)
                    versions[f"d{number}"] = 1
                    number += 1

        def search(over: threading.Event) -> None:
            with server.client(api_key) as mine:
                number = 0
                while not over.is_set():
                    uri = f"d{number % KNOWN}"
                    body = {"query": f"harbour{uri}", "mode": ("lexical", "hybrid", "dense")[number % 3], "k": 100}
                    response = mine.post("/api/v1/search", json=body | {"consistency": "eventual"})
                    assert response.status_code == 200, response.text
                    hits = [hit for hit in response.json()["results"] if hit["source_uri"] == uri]
                    if body["mode"] == "lexical":
                        assert len(hits) == 1, f"{uri} is found {len(hits)} times"
                    for hit in hits:
                        assert hit["version"] >= seen[uri], "an older version came back"
                        seen[uri] = hit["version"]
                        assert hit["text"].endswith(f"version {hit['version']}.")
                    number += 1
                    searches[0] += 1

        with threads(write, search):
            command = Process(DATA, "add-node", "manage", "shards", "add-node", spare, DATABASE_SUPERUSER_URL=SUPERUSER)
            assert command.process.wait(120) == 0, command.log.read_text()
            before = searches[0]
            rebalance = Process(DATA, "rebalance", "manage", "shards", "rebalance")
            wait_for(_end_a_waiting_session, what="a session that waits for the moves")
            assert rebalance.process.wait(300) == 0, rebalance.log.read_text()
            assert "not known how far" in rebalance.log.read_text() and "done after" in rebalance.log.read_text()
            wait_for(lambda: searches[0] > before + 20, what="more searches")
            assert "done after 0 moves" in told("rebalance")
        newcomer = next(node for node in shards.status() if f"{node.host}:{node.port}" == spare)
        assert newcomer.shards > 0 and newcomer.is_active and not newcomer.problem

        def done() -> bool:
            with tenancy.scope(collection.tenant_id):
                return not IngestionJob.objects.exclude(state="done").exists()

        wait_for(done, seconds=180, what="all that was written to be live")
        assert live() == versions
        with tenancy.scope(collection.tenant_id):
            counted = Collection.objects.get(id=collection.id)
        assert counted.documents == len(versions) and rows()["documents_document"] >= len(versions)
