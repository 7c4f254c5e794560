"""Two models: who is asked, and who stands in for one that fails, down to quotes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.redis import redis_client
from apps.documents import collections
from apps.documents.models import Collection
from tests.conftest import DATA, make_collection
from tests.support.asking import ask, events
from tests.support.fake_llm import FakeServer, fake_llm
from tests.support.processes import Server, wait_for

QUESTION = "When do backups run every night?"


@pytest.fixture(scope="module")
def fast(database: None) -> Iterator[FakeServer]:
    with fake_llm() as served:
        yield served


@pytest.fixture(scope="module")
def large(database: None) -> Iterator[FakeServer]:
    with fake_llm() as served:
        yield served


@pytest.fixture(scope="module")
def two_web(fast: FakeServer, large: FakeServer) -> Iterator[Server]:
    settings = {"LLM_MODEL": "small", "LLM_LARGE_MODEL": "big", "LLM_LARGE_URL": large.url}
    with Server(DATA, LLM_URL=fast.url, LLM_FIRST_TOKEN_SECONDS="3", **settings) as running:
        yield running


@pytest.fixture
def reader(two_web: Server, api_key: str, fast: FakeServer, large: FakeServer) -> Iterator[httpx.Client]:
    for key in redis_client().scan_iter("breaker:*"):
        redis_client().delete(key)
    fast.fails = large.fails = ""
    with two_web.client(api_key) as client:
        yield client


def test_fast_large_auto_and_names(reader: httpx.Client, guide: Collection) -> None:
    hard = "When do backups run? And who may stop them?"
    for wanted, question, model in (
        ("fast", QUESTION, "small"),
        ("large", QUESTION, "big"),
        ("auto", QUESTION, "small"),
        ("auto", hard, "big"),
        ("fast", hard, "small"),
        ("big", QUESTION, "big"),
    ):
        assert ask(reader, question, model=wanted, temperature=0.1)["model"] == model, wanted
    refused = reader.post("/api/v1/answers", json={"question": QUESTION, "model": "huge"})
    assert refused.status_code == 400 and refused.json()["code"] == "unknown_model"
    assert {"small", "big"} <= {model["id"] for model in reader.get("/v1/models").json()["data"]}


def test_the_other_model_stands_in(reader: httpx.Client, guide: Collection, fast: FakeServer) -> None:
    fast.fails = "500"
    body = ask(reader, QUESTION, temperature=0.2)
    assert (body["model"], body["degraded"]) == ("big", None) and body["citations"]


def test_where_both_fail_the_answer_that_was_given_before_and_then_quotes(
    reader: httpx.Client, guide: Collection, fast: FakeServer, large: FakeServer, ingest: Callable[..., Any]
) -> None:
    first = ask(reader, QUESTION, temperature=0.3)
    fast.fails, large.fails = "500", "cut-early"
    again = ask(reader, QUESTION, temperature=0.3)
    assert (again["id"], again["answer"], again["degraded"]) == (first["id"], first["answer"], "cached")
    assert again["cached"] and first["degraded"] is None
    assert reader.get(f"/api/v1/answers/{first['id']}").json()["degraded"] is None, "as it was given then"
    with reader.stream("POST", "/api/v1/answers", json={"question": QUESTION, "stream": True}) as response:
        found = events(response.iter_lines())
    assert found[-1][0] == "final_answer" and found[-1][1]["degraded"] == "cached"
    assert "".join(data["delta"] for name, data in found if name == "message") == first["answer"]
    ingest(guide, "Backups of the harbour run every night at four.", source_uri="other.md", title="Harbour")
    other = ask(reader, QUESTION, temperature=0.3)
    assert (other["degraded"], other["model"]) == ("extractive", "extractive"), "from other sources"


def test_a_kept_answer_is_not_given_again_when_a_source_went_meanwhile(
    reader: httpx.Client,
    tenant: Tenant,
    guide: Collection,
    fast: FakeServer,
    large: FakeServer,
    ingest: Callable[..., Any],
) -> None:
    other = make_collection(tenant, slug="other")
    ingest(other, "The harbour has backups of its own.", source_uri="harbour.md", title="Harbour")
    first = ask(reader, QUESTION, temperature=0.3)
    assert {cited["source_uri"] for cited in first["citations"]} == {"guide.md"}
    fast.fails, large.fails = "silent", "500"
    before = len(fast.requests)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, reader, QUESTION, temperature=0.3)
        wait_for(lambda: len(fast.requests) > before, what="the model to be asked")
        with tenancy.scope(tenant.id):
            collections.remove(collection=other)
        body = asking.result()
    assert (body["degraded"], body["cached"]) == ("extractive", False)


def test_with_open_breakers_the_answer_does_not_wait(
    reader: httpx.Client, guide: Collection, fast: FakeServer, large: FakeServer
) -> None:
    fast.fails = large.fails = "500"
    for number in range(6):
        assert ask(reader, f"{QUESTION} {number}")["degraded"] == "extractive"
    asked = len(fast.requests) + len(large.requests)
    began = time.monotonic()
    assert ask(reader, f"{QUESTION} once more")["degraded"] == "extractive"
    assert len(fast.requests) + len(large.requests) == asked and time.monotonic() - began < 3
    exported = reader.get("/metrics").text
    assert 'llm_errors_total{backend="openai",kind="open"}' in exported
