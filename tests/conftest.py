"""Every test runs against a real PostgreSQL and Redis, embedded in a directory of the session's own.

Tests do not roll back: each makes a tenant of its own, and the wall keeps them apart as it keeps customers apart.
The default embedding space is the `fake` backend; `real_space` has the real model.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

DATA = Path(tempfile.mkdtemp(prefix="ragsite-test-"))
MODELS = Path(__file__).resolve().parent.parent / ".data" / "models"  # the converted model survives between runs
os.environ["RAGSITE_DATA_DIR"] = str(DATA)
os.environ.update(
    DJANGO_SETTINGS_MODULE="ragsite.settings",
    EMBEDDING_BACKEND="fake",
    PARTITIONS="4",  # what holds for several holds for one
    EMBEDDING_CACHE_DIR=str(MODELS),
    SWEEP_SECONDS="1",
    JOB_LEASE_SECONDS="10",
    SOURCE_FOLDERS="/",
    SOURCE_PRIVATE_HOSTS="127.0.0.1",
    RAGSITE_FAKE_EMBED_LOG=str(DATA / "embedded.jsonl"),
)
# Run in the background of a script, pytest and all its processes would ignore Ctrl-C, which some tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
LLM_SERVER = os.environ.get("LLM_URL", "")  # for test_llm_server.py alone
for name in ("LLM_URL", "LLM_BACKEND", "DATABASE_APP_URL"):
    os.environ.pop(name, None)

import django

django.setup()

from django.core.management import call_command

from apps.access import keys, tenancy
from apps.access.models import Tenant
from apps.documents import collections, embed, prepare, spaces
from apps.documents.accept import Accepted, Submission, accept
from apps.documents.models import Collection, EmbeddingSpace
from ragsite import embedded

from .support.processes import Server, Workers


@pytest.fixture(scope="session")
def database() -> Iterator[None]:
    """The embedded servers, migrated."""
    embedded.attach()
    call_command("migrate", verbosity=0)
    yield
    from django.db import connections

    connections.close_all()


@pytest.fixture(scope="session", autouse=True)
def _clean_up() -> Iterator[None]:
    yield
    embedded.stop()


def pytest_unconfigure() -> None:
    """In each process of the run, also in one that only hands out tests."""
    shutil.rmtree(DATA, ignore_errors=True)


@pytest.fixture
def tenant(database: None) -> Tenant:
    return keys.ensure_tenant(slug=f"t-{uuid4().hex[:12]}")


@pytest.fixture
def other_tenant(database: None) -> Tenant:
    return keys.ensure_tenant(slug=f"o-{uuid4().hex[:12]}")


def _key(tenant: Tenant, *scopes: str) -> str:
    return keys.create_key(tenant_id=tenant.id, name="test", scopes=scopes or ("read", "write", "admin"))[1]


@pytest.fixture
def make_key() -> Callable[..., str]:
    """make_key(tenant, "read", ...): a key's secret text; all scopes when none is named."""
    return _key


@pytest.fixture
def api_key(tenant: Tenant) -> str:
    return _key(tenant)


@pytest.fixture
def collection(tenant: Tenant) -> Collection:
    return make_collection(tenant)


def make_collection(tenant: Tenant, **values: Any) -> Collection:
    with tenancy.scope(tenant.id):
        return collections.create(tenant_id=tenant.id, slug=values.pop("slug", "docs"), name="Docs", **values)


@pytest.fixture(scope="session")
def real_space(database: None) -> EmbeddingSpace:
    """A space with the real all-MiniLM-L6-v2; a cluster's database may have it from an earlier run."""
    pytest.importorskip("onnxruntime")
    return EmbeddingSpace.objects.filter(slug="minilm").first() or spaces.create(
        slug="minilm", backend="local", model="all-MiniLM-L6-v2", dimensions=384
    )


@pytest.fixture
def second(database: None) -> EmbeddingSpace:
    """A space for a collection that has one."""
    return spaces.create(slug=f"second-{uuid4().hex[:8]}", backend="fake", model="fake", dimensions=64)


@pytest.fixture
def real_collection(tenant: Tenant, real_space: EmbeddingSpace) -> Collection:
    return make_collection(tenant, slug="real", space=real_space.slug)


@pytest.fixture
def put() -> Callable[..., Accepted]:
    """put(collection, text, source_uri=..., version=...): accept a text without waking anybody."""

    def put(collection: Collection, text: str | bytes, *, media_type: str = "text/plain", **values: Any) -> Accepted:
        content = text.encode() if isinstance(text, str) else text
        submission = Submission(
            content=io.BytesIO(content),
            media_type=media_type,
            filename=values.pop("filename", ""),
            source_uri=values.pop("source_uri", "doc"),
            **values,
        )
        with tenancy.scope(collection.tenant_id):
            return accept(collection=collection, submission=submission, wake=False)

    return put


@pytest.fixture
def ingest(put: Callable[..., Accepted]) -> Callable[..., Accepted]:
    """put, then prepare, embed and publish in this process."""

    def ingest(collection: Collection, text: str | bytes, **values: Any) -> Accepted:
        accepted = put(collection, text, **values)
        if accepted.job is not None:
            prepare.drain(job_id=accepted.job.id)
            embed.drain(job_id=accepted.job.id)
        return accepted

    return ingest


@pytest.fixture(scope="session")
def web(database: None) -> Iterator[Server]:
    """A real uvicorn process."""
    with Server(DATA) as server:
        yield server


@pytest.fixture
def server(web: Server) -> str:
    """Its base URL."""
    return web.url


@pytest.fixture
def client(web: Server, api_key: str) -> Iterator[Any]:
    """An HTTP client with a key of all scopes."""
    with web.client(api_key) as client:
        yield client


@pytest.fixture(scope="module")
def workers(database: None) -> Iterator[Workers]:
    """Real Celery workers and beat; not longer than a module, because they would take the jobs of tests that take each
    step themselves."""
    with Workers(DATA) as running:
        yield running
