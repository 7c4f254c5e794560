"""What the server stands on is gone: writes and searches without Redis, a 503 without PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from redis import Redis
from redis.exceptions import ConnectionError, RedisError, TimeoutError

from apps.access.models import Tenant
from apps.access.redis import redis_client
from apps.documents.models import Collection
from apps.generation import progress
from apps.generation.types import Event
from ragsite.embedded.redis import server_binary
from tests.conftest import DATA
from tests.support.fake_llm import fake_llm
from tests.support.processes import ROOT, Server, free_port, wait_for
from tests.support.querying import QUERIES
from tests.support.refusals import DOCUMENTS, SEARCH, refused


def test_without_redis_writes_and_searches_go_on(tenant: Tenant, collection: Collection, api_key: str) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    with Server(DATA, REDIS_URL=nowhere) as lonely, lonely.client(api_key) as client:
        client.get("/api/v1/collections")
        started = monotonic()
        body = {"collection": "docs", "text": "Pangolins have scales."}
        assert client.post(DOCUMENTS, json=body).status_code == 202
        assert client.post(DOCUMENTS, json=body | {"text": "Otters swim.", "mode": "write_through"}).status_code == 201
        found = client.post(SEARCH, json={"query": "otters"})
        assert found.status_code == 200 and found.json()["results"][0]["text"] == "Otters swim."
        assert monotonic() - started < 5, "three requests, about a second each at most"
        checks = client.get("/readyz").json()
        assert checks["status"] == "ready" and checks["checks"]["redis"] != "ok"


def test_a_redis_that_says_nothing_costs_one_request_a_second(
    tenant: Tenant, collection: Collection, api_key: str, tmp_path: Path
) -> None:
    with own_redis() as (redis, url), fake_llm() as model:
        asked = {"question": "Do otters swim?"}
        model_of = {"LLM_URL": model.url, "LLM_MODEL": "normal", "LLM_REQUESTS_PER_MINUTE": "1000"}
        with Server(tmp_path, REDIS_URL=url, **model_of) as server, server.client(api_key) as client:
            written = {"collection": "docs", "text": "Otters swim."}
            assert client.post(DOCUMENTS, json=written | {"mode": "write_through"}).status_code == 201
            assert not client.post(ANSWERS, json=asked).json()["cached"]
            assert client.post(ANSWERS, json=asked).json()["cached"]
            redis.send_signal(signal.SIGSTOP)
            started = monotonic()
            for number in range(2):
                assert client.post(SEARCH, json={"query": f"otters {number}"}).status_code == 200
                answer = client.post(ANSWERS, json={"question": f"Do {number} otters swim?"}).json()
                assert (answer["model"], answer["degraded"]) == ("normal", None)
                assert client.post(DOCUMENTS, json=written | {"text": f"Otters {number}"}).status_code == 202
                assert client.post(QUERIES, json=asked).status_code == 202
                assert client.get("/readyz").json()["checks"]["redis"] != "ok"
            assert monotonic() - started < 5, "a second for the first of ten, which are answered in 0.4 s without it"
            redis.send_signal(signal.SIGCONT)
            wait_for(lambda: client.post(ANSWERS, json=asked).json()["cached"], seconds=10, what="Redis to be used")


def test_what_is_erased_is_forgotten_by_a_redis_that_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    query: Any = {"tenant_id": uuid4(), "query_id": uuid4()}
    with own_redis() as (redis, url):
        monkeypatch.setattr(settings, "REDIS_URL", url)
        redis_client.cache_clear()
        try:
            progress.Writer(**query, attempt=1).add(Event("message", {"delta": "Otters"}))
            assert Redis.from_url(url).keys("rs:progress:*")
            redis.send_signal(signal.SIGSTOP)
            for error in (TimeoutError, ConnectionError):  # it is waited for once
                with pytest.raises(error):
                    redis_client().ping()
            redis.send_signal(signal.SIGCONT)
            progress.forget([(query["tenant_id"], query["query_id"])])
            assert not Redis.from_url(url).keys("rs:progress:*")
        finally:
            redis_client.cache_clear()


@contextlib.contextmanager
def own_redis() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """(the process, its URL) of a Redis that nobody shares."""
    port = free_port()
    redis = subprocess.Popen([str(server_binary()), "--port", str(port), "--save", ""], stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        wait_for(lambda: is_up(url), what="Redis")
        yield redis, url
    finally:
        redis.kill()
        redis.wait()


def is_up(url: str) -> bool:
    with contextlib.suppress(RedisError):
        return bool(Redis.from_url(url).ping())
    return False


def test_a_language_model_that_is_away_is_reported_and_does_not_make_the_site_unready(
    tenant: Tenant, api_key: str
) -> None:
    with fake_llm() as model:
        there = {"LLM_URL": model.url, "LLM_MODEL": "normal"}
        away = {"LLM_LARGE_URL": f"http://127.0.0.1:{free_port()}/v1", "LLM_LARGE_MODEL": "big"}
        with Server(DATA, **there, **away) as server, server.client(api_key) as client:
            found = client.get("/readyz")
            assert found.status_code == 200
            assert found.json()["checks"]["llm"] == "ok"
            assert found.json()["checks"]["llm_large"] == "unreachable: The language model cannot be reached."
        with Server(DATA, **there | {"LLM_MODEL": "misspelt"}) as server, server.client(api_key) as client:
            checks = client.get("/readyz").json()["checks"]
            assert checks["llm"].startswith("unknown_model: ") and "llm_large" not in checks


ANSWERS = "/api/v1/answers"

OWN_POSTGRES = """
import sys
import django
django.setup()
from django.core.management import call_command
from apps.access import keys
from ragsite import embedded
from ragsite.embedded import paths
from ragsite.embedded.postgres import Postgres
embedded.attach()
call_command("migrate", verbosity=0)
tenant = keys.ensure_tenant(slug="own")
print(keys.create_key(tenant_id=tenant.id, name="own", scopes=["read", "write", "admin"])[1], flush=True)
for line in sys.stdin:
    Postgres(paths.data_dir()).stop() if line == "stop\\n" else embedded.ensure_running()
    print("done", flush=True)
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Callable[[str], None], str, dict[str, str]]]:
    """(a function that takes "stop" or "start", a key, an environment) of a PostgreSQL that nobody shares."""
    environment = {"RAGSITE_DATA_DIR": str(tmp_path / "data")}
    held = subprocess.Popen(
        [sys.executable, "-c", OWN_POSTGRES],
        env=os.environ | environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert held.stdin is not None and held.stdout is not None
    stdin, stdout = held.stdin, held.stdout

    def tell(word: str) -> None:
        stdin.write(f"{word}\n")
        stdin.flush()
        assert stdout.readline() == "done\n"

    try:
        yield tell, stdout.readline().strip(), environment
    finally:
        with contextlib.suppress(OSError):
            stdin.close()
        held.wait(60)


def test_without_postgres_a_503_says_when_to_come_back(
    own: tuple[Callable[[str], None], str, dict[str, str]], tmp_path: Path
) -> None:
    tell, key, environment = own
    with Server(tmp_path, **environment) as server, server.client(key) as client:
        assert client.post("/api/v1/collections", json={"slug": "docs", "name": "Docs"}).status_code == 201
        tell("stop")
        for method, path, body in [
            ("GET", DOCUMENTS, None),
            ("POST", SEARCH, {"query": "x"}),
            ("POST", DOCUMENTS, {"collection": "docs", "text": "x"}),
            ("GET", "/v1/models", None),
        ]:
            response = client.request(method, path, json=body)
            assert refused(response, 503)["code"] == "database_unavailable"
            assert int(response.headers["retry-after"]) > 0
        assert client.get("/healthz").status_code == 200
        tell("start")
        wait_for(lambda: client.get("/readyz").status_code == 200, what="the server to recover")
        assert client.post(DOCUMENTS, json={"collection": "docs", "text": "x"}).status_code == 202
