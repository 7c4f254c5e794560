"""A key's tokens per minute: what models read and write for it, whichever way they are asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from apps.access import keys, tenancy
from apps.access.models import Tenant
from apps.access.sliding import MINUTE, Window
from apps.documents.models import Collection
from apps.generation.models import Query
from tests.conftest import DATA
from tests.support import querying
from tests.support.asking import GUIDE, ask, events
from tests.support.fake_llm import FakeServer
from tests.support.processes import Server, wait_for, worker
from tests.support.refusals import refused

LIMIT = 20  # an answer of the scripted model takes 18
ANSWERS, CHAT = "/api/v1/answers", "/v1/chat/completions"


@pytest.fixture
def limited(
    llm_web: Server, tenant: Tenant, collection: Collection, ingest: Callable[..., Any]
) -> Iterator[httpx.Client]:
    ingest(collection, GUIDE, source_uri="guide.md", title="Guide", media_type="text/markdown")
    key = keys.create_key(tenant_id=tenant.id, name="poor", scopes=["read"], tokens_per_minute=LIMIT)[1]
    with llm_web.client(key) as client:
        yield client


def body(question: str, **fields: Any) -> dict[str, Any]:
    return {"question": question} | fields


def test_it_ends_answers_until_the_minute_has_passed(limited: httpx.Client, llm: FakeServer) -> None:
    ask(limited, "When do backups run?")
    asked = len(llm.requests)
    for streams in (False, True):
        found = limited.post(ANSWERS, json=body("When do backups end?", stream=streams))
        refused(found, 429, "too_many_tokens")
        assert 0 < int(found.headers["retry-after"]) <= 2 * MINUTE
    assert len(llm.requests) == asked


def test_what_no_model_is_asked_for_costs_nothing(limited: httpx.Client, api_key: str) -> None:
    first = ask(limited, "When do backups run?")
    assert ask(limited, "When do backups run?")["id"] == first["id"], "given again"
    assert ask(limited, "When do backups end?", model="extractive")["model"] == "extractive"
    assert limited.post("/api/v1/search", json={"query": "backups"}).status_code == 200
    assert ask(limited, "xyzzy", filters={"source_uri": {"$eq": "none"}})["abstained"], "nothing was found"


def test_queries_cost_the_key_that_asked_for_them(limited: httpx.Client, llm: FakeServer, tenant: Tenant) -> None:
    """One that was accepted waits for the others' minute to pass; a later one is refused."""
    asked = len(llm.requests)
    first, second = (querying.ask(limited, question) for question in ("When do backups run?", "When do backups end?"))
    with worker(DATA, "generate", name="answering", LLM_URL=llm.url):
        wait_for(lambda: querying.state(limited, first)["state"] == "done", seconds=40, what="the first to be answered")
        wait_for(lambda: waits(tenant, second), seconds=20, what="the second to be put off")
    assert querying.state(limited, second)["state"] == "queued"
    assert len(llm.requests) == asked + 1
    refused(limited.post(querying.QUERIES, json=body("And why?")), 429, "too_many_tokens")
    assert limited.post(f"{querying.QUERIES}/{second}/cancel").status_code == 200, "others look at the same queue"


def waits(tenant: Tenant, query: str) -> bool:
    with tenancy.scope(tenant.id):
        row = Query.objects.get(id=query)
    return row.attempts == 0 and row.not_before is not None


def test_another_key_has_its_own(limited: httpx.Client, llm_web: Server, api_key: str) -> None:
    ask(limited, "When do backups run?")
    assert limited.post(ANSWERS, json=body("When do backups end?")).status_code == 429
    with llm_web.client(api_key) as unlimited:
        for number in range(3):
            ask(unlimited, f"When does backup {number} end?")


def test_a_replay_counts_too(limited: httpx.Client) -> None:
    answer_id = ask(limited, "When do backups run?")["id"]
    refused(limited.post(f"{ANSWERS}/{answer_id}/replay"), 429, "too_many_tokens")


def test_openais_clients_are_told_in_their_way(limited: httpx.Client, llm_web: Server) -> None:
    key = limited.headers["authorization"].removeprefix("Bearer ")
    ai = openai.OpenAI(base_url=f"{llm_web.url}/v1", api_key=key, max_retries=0)
    values: Any = {"model": "ragsite/docs", "temperature": 0.1, "messages": [{"role": "user", "content": "Backups?"}]}
    assert ai.chat.completions.create(**values).usage.total_tokens == 18
    for streams in (False, True):
        with pytest.raises(openai.RateLimitError) as raised:
            ai.chat.completions.create(**values, stream=streams)
        assert (raised.value.code, raised.value.type) == ("too_many_tokens", "rate_limit_error")
        assert 0 < int(raised.value.response.headers["retry-after"]) <= 2 * MINUTE


def test_embeddings_count_what_they_read(limited: httpx.Client, collection: Collection) -> None:
    def embed(text: str) -> httpx.Response:
        return limited.post("/v1/embeddings", json={"model": collection.space.model, "input": text})

    assert embed("one " * 15).json()["usage"]["total_tokens"] == 15
    assert embed("one " * 6).status_code == 429 and embed("one " * 5).status_code == 200
    assert limited.post(ANSWERS, json=body("When do backups run?")).status_code == 429


def test_a_reader_who_leaves_has_had_what_was_written(limited: httpx.Client, llm_web: Server, tenant: Tenant) -> None:
    made, secret = keys.create_key(tenant_id=tenant.id, name="hasty", scopes=["read"], tokens_per_minute=1_000_000)
    window = Window("key-tokens", str(made.id), amount=1_000_000)
    with llm_web.client(secret) as client:
        asked = body("When do backups run? script:slow", stream=True)
        with client.stream("POST", ANSWERS, json=asked) as response:
            lines = response.iter_lines()  # kept: httpx hangs up when it is forgotten
            next(line for line in lines if "and on" in line)
            assert window.wait(1_000_000) == 0, "nothing is counted yet"
        wait_for(lambda: window.wait(1_000_000) > 0, seconds=10, what="the tokens to be counted")


def test_of_many_at_once_all_are_counted(limited: httpx.Client) -> None:
    with limited.stream("POST", ANSWERS, json=body("When do backups run? script:paced", stream=True)) as response:
        ask(limited, "When do backups run?")  # there was room for both when they came
        assert events(response.iter_lines())[-1][0] == "final_answer"
    refused(limited.post(ANSWERS, json=body("When do backups end?")), 429, "too_many_tokens")


def test_the_wait_is_as_long_as_it_must_be(database: None) -> None:
    window = Window("test", uuid4().hex, amount=100)
    assert window.wait(100) == window.wait(1_000) == 0
    window.add(70)
    assert window.wait(30) == 0 and window.take(30) and not window.take(1)
    assert 0 < window.wait(1) <= MINUTE + 1 < window.wait(100) <= 2 * MINUTE
    window.add(50)
    assert not window.take(1), "full, and no more than that"


def test_without_redis_nothing_is_counted(no_redis: None) -> None:
    window = Window("test", "x", amount=1)
    window.add(1)
    assert window.take(1) and window.wait(1) == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--tokens-per-minute", "0"), "tokens_per_minute: At least 1; to stop a key, revoke it."),
        (("--requests-per-minute", "0"), "requests_per_minute: At least 1"),
        (("--requests-per-minute", "-1"), "requests_per_minute: At least 1"),
        (("--tokens-per-minute", "99999999999"), "tokens_per_minute: "),
        (("--name", "n" * 101), "name: "),
        (("--scopes", "zz"), "scopes are read, write, admin; got zz"),
    ],
)
def test_a_key_that_cannot_be_leaves_no_tenant_behind(database: None, options: tuple[str, str], why: str) -> None:
    with pytest.raises(CommandError, match=re.escape(why)):
        call_command("apikey", "create", "--name", "n", "--tenant", "ghost", *options)
    with tenancy.scope(tenancy.tenant_id_for("ghost")):
        assert not Tenant.objects.filter(slug="ghost").exists()


def test_the_command_line_sets_it(tenant: Tenant, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("apikey", "create", "--name", "n", "--tenant", tenant.slug, "--tokens-per-minute", "70")
    caller = keys.recognise(capsys.readouterr().out.strip())
    assert caller is not None and (caller.tokens_per_minute, caller.requests_per_minute) == (70, None)
