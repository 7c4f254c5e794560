"""Fixtures of several files of integration tests; those of all tests are in tests/conftest.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from django.conf import settings
from django.db import connection, connections

from apps.access.redis import redis_client
from apps.documents.engines import engine_for
from apps.documents.models import Collection
from ragsite.embedded import paths
from ragsite.embedded.bootstrap import bootstrap
from tests.conftest import DATA
from tests.support.asking import GUIDE
from tests.support.fake_llm import FakeServer, fake_llm
from tests.support.moving import CLUSTER, SOURCE, WRITING, Target, empty
from tests.support.processes import Server, free_port


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
        empty(CLUSTER)
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


@pytest.fixture
def no_redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process does not reach Redis."""
    monkeypatch.setattr(settings, "REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    redis_client.cache_clear()
    yield
    redis_client.cache_clear()


@pytest.fixture
def guide(collection: Collection, ingest: Callable[..., Any]) -> Collection:
    ingest(collection, GUIDE, source_uri="guide.md", title="Guide", media_type="text/markdown")
    return collection


@pytest.fixture(scope="module")
def llm(database: None) -> Iterator[FakeServer]:
    """A language model's server, scripted."""
    with fake_llm() as served:
        yield served


@pytest.fixture(scope="module")
def llm_web(llm: FakeServer) -> Iterator[Server]:
    """A web server whose answers it writes."""
    with Server(DATA, LLM_URL=llm.url) as running:
        yield running


@pytest.fixture
def reader(llm_web: Server, api_key: str) -> Iterator[httpx.Client]:
    """A client of that. What the model's server failed at is forgiven afterwards."""
    with llm_web.client(api_key) as client:
        yield client
    for key in redis_client().scan_iter("breaker:*"):
        redis_client().delete(key)
