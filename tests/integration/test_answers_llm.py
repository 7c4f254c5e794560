"""POST /api/v1/answers with a served model that misbehaves when the question says so (tests/support/fake_llm.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import psutil
import pytest

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.redis import redis_client
from apps.documents import erasure, remove
from apps.documents.models import Collection, Document
from apps.generation.models import Answer
from apps.generation.types import Usage
from tests.conftest import DATA
from tests.support.asking import ask, events
from tests.support.fake_llm import FakeServer
from tests.support.processes import Server, wait_for


@pytest.fixture(scope="module")
def llm_web(llm: FakeServer) -> Iterator[Server]:
    with Server(DATA, LLM_URL=llm.url, LLM_FIRST_TOKEN_SECONDS="3", LLM_NEXT_TOKEN_SECONDS="3") as running:
        yield running


@pytest.fixture(autouse=True)
def _forgiven(llm_web: Server) -> None:
    """What the model's server failed at in another test is forgotten."""
    for key in redis_client().scan_iter("breaker:*"):
        redis_client().delete(key)


def stream(reader: httpx.Client, question: str) -> list[tuple[str, Any]]:
    body = {"question": question, "stream": True}
    with reader.stream("POST", "/api/v1/answers", json=body) as response:
        assert response.status_code == 200
        return events(response.iter_lines())


def test_the_model_answers_and_is_cited(reader: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    body = ask(reader, "When do backups run?", model="normal", max_tokens=77, temperature=0.5)
    assert body["answer"] == "Backups run every night at 02:30 UTC [1]."
    assert (body["model"], body["degraded"], body["grounded"]) == ("normal", None, 1.0)
    assert body["citations"][0]["quote"] == "Backups run every night at 02:30 UTC."
    assert body["usage"] == Usage(11, 7).as_json()
    assert (llm.requests[-1]["max_tokens"], llm.requests[-1]["temperature"]) == (77, 0.5)
    prompt = llm.requests[-1]["messages"][-1]["content"]
    assert "[1] <passage" in prompt and "operator role [ 3 ]" in prompt


def test_what_is_hardly_supported_is_withheld_where_that_is_asked_for(
    reader: httpx.Client, guide: Collection, llm: FakeServer
) -> None:
    asked = "When do backups run? script:astray"
    said = ask(reader, asked)
    assert said["grounded"] < 0.8 and not said["abstained"]
    # The kept answer above is for whoever did not ask for more.
    withheld = ask(reader, asked, min_grounded=0.8)
    assert (withheld["answer"], withheld["abstained"]) == ("The sources do not answer this question.", True)
    assert withheld["citations"] == withheld["sentences"] == [] and not withheld["cached"]
    body = {"question": asked, "min_grounded": 0.8, "stream": True}
    with reader.stream("POST", "/api/v1/answers", json=body) as response:
        found = events(response.iter_lines())
    assert [data["delta"] for name, data in found if name == "message"] == [withheld["answer"]]
    assert found[-1][1]["abstained"]
    assert ask(reader, "When do backups run?", min_grounded=1)["grounded"] == 1.0
    refused = reader.post("/api/v1/answers", json={"question": asked, "min_grounded": 1.5})
    assert refused.status_code == 400 and refused.json()["errors"][0]["pointer"] == "/min_grounded"


def test_a_fast_model_is_read_fifty_times_a_second(reader: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    """A hundred tokens, ten milliseconds each: the first leaves by itself, the others by twos or more, none is lost."""
    body = {"question": "When do backups run? script:paced", "stream": True}
    with reader.stream("POST", "/api/v1/answers", json=body) as response:
        deltas = [data["delta"] for name, data in events(response.iter_lines()) if name == "message"]
    assert deltas[0] == "word0" and len(deltas) <= 60
    assert "".join(deltas) == " ".join([*(f"word{number}" for number in range(99)), "words [1]."])


def test_a_count_of_tokens_that_cannot_be_is_no_answer(
    reader: httpx.Client, guide: Collection, llm: FakeServer
) -> None:
    body = ask(reader, "When do backups run? script:counting")
    assert body["degraded"] == "extractive"


def test_limits_go_to_the_models_server(
    reader: httpx.Client, guide: Collection, llm: FakeServer, llm_web: Server, api_key: str
) -> None:
    """Which keeps them: its own tokenizer counts, so nothing is cut here."""
    ai = openai.OpenAI(base_url=f"{llm_web.url}/v1", api_key=api_key, max_retries=0)
    question: Any = [{"role": "user", "content": "When do backups run?"}]
    values: Any = {"model": "ragsite/docs", "messages": question, "max_tokens": 3, "stop": ["UTC", "x"]}
    found = ai.chat.completions.create(**values, temperature=0.3, top_p=0.5, seed=7)
    sent = llm.requests[-1]
    assert (sent["max_tokens"], sent["stop"]) == (3, ["UTC", "x"])
    assert (sent["temperature"], sent["top_p"], sent["seed"]) == (0.3, 0.5, 7)
    assert found.choices[0].message.content == "Backups run every night at 02:30 UTC [1]."
    assert found.usage is not None and found.usage.completion_tokens == 7
    cut = ai.chat.completions.create(**values | {"messages": [question[0] | {"content": "Backups? script:length"}]})
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (
        "Backups run every night at 02:30 UTC",
        "length",
    )


def test_markers_of_no_passage_never_leave(reader: httpx.Client, guide: Collection) -> None:
    found = stream(reader, "When do backups run? script:bogus")
    text = "".join(data["delta"] for name, data in found if name == "message")
    assert text == found[-1][1]["answer"] == "Backups run every night at 02:30 UTC [1] and or so [1]."
    assert [citation["marker"] for citation in found[-1][1]["citations"]] == [1]


def test_a_model_that_fails_at_once_is_replaced(reader: httpx.Client, guide: Collection) -> None:
    for script in ("500", "silent"):
        final = stream(reader, f"When do backups run every night? script:{script}")[-1]
        assert final[0] == "final_answer"
        assert final[1]["degraded"] == final[1]["model"] == "extractive"
        assert "02:30" in final[1]["answer"]
    exported = reader.get("/metrics").text
    assert 'llm_errors_total{backend="openai",kind="server_error"}' in exported
    assert 'llm_requests_total{backend="openai",outcome="error"}' in exported


def test_a_model_that_fails_in_the_middle_ends_the_stream_with_an_error(
    reader: httpx.Client, guide: Collection
) -> None:
    for script, kind in (("stall", "timeout"), ("cut", "cut_off")):
        name, data = stream(reader, f"When do backups run every night? script:{script}")[-1]
        assert (name, data["code"], data["kind"], data["status"]) == ("error", "llm_failed", kind, 502)
        assert data["request_id"]
    whole = ask(reader, "When do backups run every night? script:cut")
    assert whole["degraded"] == "extractive", "nobody had read its beginning"


def test_openais_stream_reports_the_error(
    reader: httpx.Client, guide: Collection, llm_web: Server, api_key: str
) -> None:
    ai = openai.OpenAI(base_url=f"{llm_web.url}/v1", api_key=api_key, max_retries=0)
    question: Any = [{"role": "user", "content": "When do backups run? script:cut"}]
    with pytest.raises(openai.APIError, match="language model"):
        list(ai.chat.completions.create(model="ragsite/docs", messages=question, stream=True))
    assert "normal" in [model.id for model in ai.models.list()]


def test_a_reader_who_leaves_stops_the_model(reader: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    before = llm.dropped
    body = {"question": "When do backups run? script:slow", "stream": True}
    with reader.stream("POST", "/api/v1/answers", json=body) as response:
        for line in response.iter_lines():
            if "and on" in line:
                break
    wait_for(lambda: llm.dropped == before + 1, seconds=10, what="the model's stream to be closed")
    wait_for(
        lambda: 'llm_requests_total{backend="openai",outcome="cancelled"} ' in reader.get("/metrics").text,
        seconds=10,
        what="the cancellation to be counted",
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/answers", {"question": "When do backups run? script:slow"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "When do backups run? script:slow"}]}),
    ],
)
def test_a_reader_who_leaves_before_the_whole_answer_stops_the_model(
    reader: httpx.Client, guide: Collection, llm: FakeServer, path: str, body: dict[str, Any]
) -> None:
    before, begun = llm.dropped, llm.scripts.count("slow")
    with pytest.raises(httpx.ReadTimeout):
        reader.post(path, json=body, timeout=0.8)
    assert llm.scripts.count("slow") == begun + 1
    wait_for(lambda: llm.dropped == before + 1, seconds=1, every=0.02, what="the model's stream to be closed")


def test_many_readers_hold_no_database_connection_while_the_model_writes(
    reader: httpx.Client, guide: Collection, llm_web: Server, api_key: str
) -> None:
    """More streams than the pool has connections, and a search goes through."""
    body = {"question": "When do backups run? script:slow", "stream": True}
    reading = []
    with ExitStack() as stack:
        for _ in range(20):
            lines = stack.enter_context(reader.stream("POST", "/api/v1/answers", json=body)).iter_lines()
            next(line for line in lines if "and on" in line)
            reading.append(lines)  # httpx hangs up when it is forgotten
        headers = {"Authorization": f"Bearer {api_key}"}
        url = f"{llm_web.url}/api/v1/search"
        assert httpx.post(url, json={"query": "backups"}, headers=headers, timeout=15).status_code == 200


@pytest.mark.parametrize("streamed", [False, True])
def test_a_source_that_is_erased_while_the_model_writes_leaves_nothing(
    reader: httpx.Client, tenant: Tenant, guide: Collection, llm: FakeServer, streamed: bool
) -> None:
    llm.go.clear()
    told = len(llm.requests)
    body = {"question": "When do backups run? script:held", "stream": streamed}
    with tenancy.scope(tenant.id):
        document = Document.objects.get()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(reader.post, "/api/v1/answers", json=body)
        wait_for(lambda: len(llm.requests) > told, seconds=10, what="the model to be asked")
        remove.delete(tenant_id=tenant.id, document_id=document.id, erase=True)
        llm.go.set()
        answer = asked.result().text
    assert "sources_changed" in answer if streamed else json.loads(answer)["citations"] == []
    with tenancy.scope(tenant.id):
        assert set(erasure.traces(document.id).values()) == {0}
        assert not any("02:30" in str(vars(each)) for each in Answer.objects.all())


def test_a_stream_holds_no_thread(guide: Collection, llm: FakeServer, llm_web: Server, api_key: str) -> None:
    process = psutil.Process(llm_web.running.process.pid)
    with llm_web.client(api_key) as client, ExitStack() as stack:
        before = process.num_threads()
        for _ in range(20):
            body = {"question": "When do backups run? script:slow", "stream": True}
            response = stack.enter_context(client.stream("POST", "/api/v1/answers", json=body))
            next(line for line in response.iter_lines() if line == "event: message")
        assert process.num_threads() <= before + 4, "what is asked one after the other takes few"
