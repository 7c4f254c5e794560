"""A bad day: everything that can die does, again and again, while a thousand documents are written and rewritten.

The whole product as `manage.py up` runs it, in a directory of its own: what dies is started again by its supervisor.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import psycopg
import redis

from ragsite import embedded
from tests.support.processes import ROOT, free_port, wait_for

from .test_ingest import paragraphs

DOCUMENTS, WRITERS = 1_000, 4
ROUNDS = 3
#: What is killed with SIGKILL, by a word of its command line.
VICTIMS = {
    "web": "uvicorn",
    "preparing worker": "prepare",
    "embedding worker": "embed",
    "beat": "beat",
    "Redis": "redis.sock",
    "PostgreSQL": "postgres",
}


class Up:
    """`manage.py up` in its own directory; `url` and `key` to speak to it."""

    def __init__(self, data: Path) -> None:
        self.data, port = data, free_port()
        self.url = f"http://127.0.0.1:{port}"
        servers = ("DATABASE_URL", "REDIS_URL")
        environment = {name: value for name, value in os.environ.items() if name not in servers}
        environment |= {"RAGSITE_DATA_DIR": str(data), "EMBEDDING_BACKEND": "fake", "SWEEP_SECONDS": "1"}
        self.environment = environment | {"JOB_LEASE_SECONDS": "3", "JOB_MAX_ATTEMPTS": "30"}
        data.mkdir()
        self.log = data.parent / "up.log"
        with self.log.open("wb") as log:
            argv = [sys.executable, "manage.py", "up", "--no-sample", "--port", str(port)]
            self.process = subprocess.Popen(argv, cwd=ROOT, env=self.environment, stdout=log, stderr=log)

    def __enter__(self) -> Up:
        wait_for(self.ready, seconds=90, what=f"the product; see {self.log}")
        argv = [sys.executable, "manage.py", "apikey", "create", "--name", "test", "--scopes", "read,write,admin"]
        made = subprocess.run(argv, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=True)
        self.key = made.stdout.strip()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        return False

    def kill(self, word: str) -> bool:
        """SIGKILL for the process with this word in its command line. False when there is none just now."""
        for process in self._family():
            with contextlib.suppress(psutil.Error):
                if word in " ".join(process.cmdline()):
                    process.kill()
                    return True
        return False

    def _family(self) -> Iterator[psutil.Process]:
        """What the supervisor runs, and the servers of its directory."""
        yield from psutil.Process(self.process.pid).children()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cwd().startswith(str(self.data)) and process.name() != "python":
                    yield process


def put(up: Up, number: int, version: int) -> int:
    """Send a document until it is answered; a client's whole part in a bad day."""
    body = {
        "collection": "docs",
        "source_uri": f"d{number}",
        "version": version,
        "text": "\n\n".join(paragraphs(3, seed=f"{number}/{version}")),
        "mode": "write_through" if number % 5 == 0 else "write_back",
    }
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            status = httpx.post(
                f"{up.url}/api/v1/documents", json=body, headers={"X-API-Key": up.key}, timeout=30
            ).status_code
            if status in (200, 201, 202, 409):  # 409: the same, which was stored though its answer was lost
                return status
            assert status == 503, status
        time.sleep(0.2)
    raise AssertionError(f"d{number} was never answered; see {up.log}")


def test_a_thousand_documents_on_a_bad_day(tmp_path: Path) -> None:
    dice = random.Random(20)
    killed: Counter[str] = Counter()
    over = threading.Event()
    with Up(tmp_path / "data") as up:
        made = httpx.post(
            f"{up.url}/api/v1/collections",
            json={"slug": "docs", "name": "Docs"},
            headers={"X-API-Key": up.key},
            timeout=30,
        )
        assert made.status_code == 201

        def calamities() -> None:
            for _ in range(ROUNDS):
                for victim in dice.sample([*VICTIMS, "Redis' memory"], len(VICTIMS) + 1):
                    time.sleep(dice.uniform(0.3, 1.5))
                    if victim == "Redis' memory":
                        with contextlib.suppress(redis.RedisError):
                            redis.from_url(embedded.redis_url(up.data)).flushall()
                            killed[victim] += 1
                    else:
                        killed[victim] += up.kill(VICTIMS[victim])
            over.set()

        trouble = threading.Thread(target=calamities)
        trouble.start()
        writes = [(number, 1) for number in range(DOCUMENTS)] + [(number, 2) for number in range(0, DOCUMENTS, 4)]
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(lambda write: put(up, *write), writes))
        trouble.join()
        assert min(killed[victim] for victim in VICTIMS) >= 2, killed
        wait_for(up.ready, seconds=90, what="the product to be ready again")
        with psycopg.connect(embedded.superuser_url(up.data), dbname="ragsite", autocommit=True) as database:
            ask = _asker(database)
            wait_for(
                lambda: (
                    ask("SELECT count(*) FROM documents_ingestionjob WHERE state IN ('queued', 'running')") == [(0,)]
                ),
                seconds=120,
                what="the jobs to end",
            )
            check(ask)


def _asker(database: psycopg.Connection) -> Callable[[str], list[tuple]]:
    return lambda query: database.execute(query).fetchall()  # type: ignore[arg-type]


def check(ask: Callable[[str], list[tuple]]) -> None:
    """Every document live in its newest version, or failed with a reason; every row counted."""
    states = ask(
        "SELECT state, version = live_version, error ->> 'code', count(*) FROM documents_document GROUP BY 1, 2, 3"
    )
    assert states == [("live", True, None, DOCUMENTS)], states
    newest = ask("SELECT version, count(*) FROM documents_document GROUP BY 1 ORDER BY 1")
    assert newest == [(1, DOCUMENTS - DOCUMENTS // 4), (2, DOCUMENTS // 4)]
    wrong = ask(
        """
        SELECT count(*) FROM documents_document d JOIN documents_documentversion v
          ON v.document_id = d.id AND v.version = d.live_version
        WHERE ARRAY(SELECT unnest(v.chunk_ids) ORDER BY 1) <> ARRAY(
            SELECT c.chunk_id FROM documents_chunk c
            WHERE c.document_id = d.id AND c.retired_in_version IS NULL ORDER BY 1)
        """
    )
    assert wrong == [(0,)]
    chunks = ask("SELECT count(*) FROM documents_chunk WHERE retired_in_version IS NULL")
    assert ask("SELECT count(*) FROM embedding_default WHERE live") == chunks
    assert ask("SELECT documents, chunks FROM documents_collection WHERE slug = 'docs'") == [(DOCUMENTS, chunks[0][0])]
    assert ask("SELECT count(*) FROM documents_stagedchunk") == [(0,)]
    jobs = ask("SELECT state, outcome, count(*) FROM documents_ingestionjob GROUP BY 1, 2")
    assert {(state, outcome) for state, outcome, _ in jobs} <= {("done", "published"), ("done", "superseded")}, jobs
