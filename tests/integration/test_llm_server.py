"""A real server of a language model: set LLM_URL to its `/v1`. `make test-vllm` starts a vLLM of its own.

What it writes is its own business (a toy model writes noise): tested is that what the API promises holds with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import httpx
import openai
import pytest

from apps.documents.models import Collection
from apps.generation import prompts
from apps.generation.attribution import FORMAT, Sources
from tests.conftest import DATA, LLM_SERVER
from tests.support.asking import GUIDE, ask, events
from tests.support.hits import passages
from tests.support.processes import Server, wait_for

pytestmark = [
    pytest.mark.llm,
    pytest.mark.skipif(not LLM_SERVER, reason="LLM_URL is not set: no server of a language model to test against"),
]

CONTEXT = 8_192  # tokens; the server has as many, or more
QUESTION: Any = [{"role": "user", "content": "When do backups run every night?"}]


@pytest.fixture(scope="module")
def web_with_llm(database: None) -> Iterator[Server]:
    with Server(DATA, LLM_URL=LLM_SERVER, LLM_CONTEXT_TOKENS=str(CONTEXT)) as running:
        yield running


@pytest.fixture
def reader(web_with_llm: Server, api_key: str, collection: Collection, ingest: Callable) -> Iterator[httpx.Client]:
    ingest(collection, GUIDE, source_uri="guide.md", title="Guide", media_type="text/markdown")
    with web_with_llm.client(api_key) as client:
        yield client


@pytest.fixture
def ai(web_with_llm: Server, api_key: str, reader: httpx.Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{web_with_llm.url}/v1", api_key=api_key, max_retries=0)


@pytest.fixture(scope="module")
def served() -> str:
    """The model's name."""
    return openai.OpenAI(base_url=LLM_SERVER, api_key="none").models.list().data[0].id


def holds(answer: dict[str, Any]) -> None:
    markers = {int(number) for number in re.findall(r"\[(\d+)\]", answer["answer"])}
    assert markers == {citation["marker"] for citation in answer["citations"]}
    assert 0 <= answer["grounded"] <= 1 and answer["finish_reason"] in ("stop", "length")


def test_it_writes_the_answer(reader: httpx.Client, served: str) -> None:
    answer = ask(reader, max_tokens=32)
    assert (answer["model"], answer["degraded"]) == (served, None)
    assert 0 < answer["usage"]["completion_tokens"] <= 32 < answer["usage"]["prompt_tokens"]
    holds(answer)
    assert reader.get(f"/api/v1/answers/{answer['id']}").json()["answer"] == answer["answer"]


def test_its_stream_adds_up(reader: httpx.Client, served: str) -> None:
    body = {"question": "When do backups run?", "stream": True, "max_tokens": 32}
    with reader.stream("POST", "/api/v1/answers", json=body) as response:
        found = events(response.iter_lines())
    name, final = found[-1]
    assert name == "final_answer" and final["model"] == served
    assert "".join(data["delta"] for name, data in found if name == "message") == final["answer"]
    holds(final)


@pytest.mark.parametrize("attribution", ["after", "model"])
def test_what_it_writes_is_cited_afterwards(reader: httpx.Client, served: str, attribution: str) -> None:
    answer = ask(reader, max_tokens=64, attribution=attribution)
    assert (answer["model"], answer["degraded"]) == (served, None)
    holds(answer)
    assert reader.get(f"/api/v1/answers/{answer['id']}/verify").json()["verified"]


def test_it_says_where_sentences_are_from_in_the_form_that_is_asked_for(served: str) -> None:
    """Whatever it makes of them: a server that decodes by a schema writes nothing else."""
    found = passages("Backups run every night at 02:30 UTC.", "Parking is free on Sundays.")
    sentence = "Copies are made while you sleep."
    schema = json.dumps(FORMAT["json_schema"]["schema"])
    asked: Any = prompts.sources("When?", sentence, [sentence], found, schema=schema, room=CONTEXT - 512)
    client, form = openai.OpenAI(base_url=LLM_SERVER, api_key="none"), cast(Any, FORMAT)
    said = client.chat.completions.create(model=served, messages=asked, max_tokens=512, response_format=form)
    text = said.choices[0].message.content or ""
    assert re.match(r'\s*\{\s*"sources"\s*:\s*\[', text)
    if said.choices[0].finish_reason != "length":  # a toy does not come to an end
        Sources(found, None).learn([sentence], text)


def test_the_official_client_reads_it(ai: openai.OpenAI) -> None:
    whole = ai.chat.completions.create(model="ragsite/docs", messages=QUESTION, max_tokens=16, temperature=0)
    assert whole.usage is not None and 0 < whole.usage.completion_tokens <= 16
    assert whole.choices[0].finish_reason in ("stop", "length")
    options: Any = {"include_usage": True}
    pieces = list(
        ai.chat.completions.create(
            model="ragsite/docs", messages=QUESTION, max_tokens=16, temperature=0, stream=True, stream_options=options
        )
    )
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole.choices[0].message.content
    assert pieces[-1].usage is not None and pieces[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_it_can_be_asked_by_its_own_name(ai: openai.OpenAI, served: str) -> None:
    assert served in [model.id for model in ai.models.list()]
    answer = ai.chat.completions.create(model=served, messages=QUESTION, max_tokens=8)
    assert answer.model == served


def test_its_own_limits_hold(ai: openai.OpenAI) -> None:
    def write(**options: Any) -> Any:
        found = ai.chat.completions.create(model="ragsite/docs", messages=QUESTION, **options)
        return found.choices[0].message.content, found.choices[0].finish_reason

    text, reason = write(max_tokens=16, temperature=0)
    if reason != "length":
        pytest.skip("this model has said all in 16 tokens")
    warm: Any = {"max_tokens": 16, "temperature": 1.0}
    varied = write(**warm, seed=7)[0]
    assert write(**warm, seed=7)[0] == varied
    word = next(found for found in reversed(re.findall(r"\w{4,}", varied)) if varied.index(found) > 0)
    assert write(**warm, seed=7, stop=[word]) == (varied[: varied.index(word)].rstrip(), "stop")
    assert len({write(**warm, seed=seed) for seed in range(3)}) > 1
    assert write(**warm, seed=7, top_p=0.001)[0] == text, "none but the likeliest tokens"


def test_a_prompt_that_fills_the_window_is_taken(
    reader: httpx.Client, collection: Collection, ingest: Callable[..., Any]
) -> None:
    for number in range(20):
        text = " ".join(f"Backup {number} of machine {line} runs every night at 02:{line}." for line in range(10, 60))
        ingest(collection, text, source_uri=f"{number}.txt")
    answer = ask(reader, k=50, max_tokens=64)
    assert answer["degraded"] is None
    assert CONTEXT // 3 < answer["usage"]["prompt_tokens"] <= CONTEXT - 64


def test_a_window_that_is_smaller_than_the_settings_say_is_no_failure_of_ours(
    api_key: str, collection: Collection, ingest: Callable[..., Any]
) -> None:
    text = " ".join(f"Backup {number} runs every night at a time of its own." for number in range(5_000))
    ingest(collection, text, source_uri="long.txt")
    with Server(DATA, LLM_URL=LLM_SERVER, LLM_CONTEXT_TOKENS="1000000") as web, web.client(api_key) as reader:
        answer = ask(reader, "When do backups run?", k=200)
        rejected = 'llm_errors_total{backend="openai",kind="rejected"}' in reader.get("/metrics").text
    if not rejected:
        pytest.skip("this model reads as much as the test has")
    assert answer["degraded"] == "extractive" and "every night" in answer["answer"]


def test_a_model_that_it_does_not_have_is_answered_for_by_quotes(
    reader: httpx.Client, ai: openai.OpenAI, api_key: str
) -> None:
    with Server(DATA, LLM_URL=LLM_SERVER, LLM_MODEL="misspelt") as web, web.client(api_key) as mistaken:
        answer = ask(mistaken)
    assert (answer["degraded"], answer["model"]) == ("extractive", "extractive") and "02:30" in answer["answer"]
    with pytest.raises(openai.NotFoundError) as refused:
        ai.chat.completions.create(model="misspelt", messages=QUESTION)
    assert refused.value.code == "model_not_found"


def test_it_tells_what_of_a_prompt_it_had_cached(ai: openai.OpenAI) -> None:
    for _ in range(2):
        found = ai.chat.completions.create(model="ragsite/docs", messages=QUESTION, max_tokens=8, temperature=0.1)
        usage: Any = found.usage
    if not usage.prompt_tokens_details.cached_tokens:
        pytest.skip("this server does not tell, or does not cache")
    assert usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens


def test_it_writes_json_of_a_schema(ai: openai.OpenAI) -> None:
    city = {"type": "string", "enum": ["Rome", "Oslo"]}
    schema = {"type": "object", "properties": {"city": city}, "required": ["city"], "additionalProperties": False}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
    found = ai.chat.completions.create(
        model="ragsite/docs", messages=QUESTION, max_tokens=64, temperature=0, response_format=wanted
    )
    assert json.loads(found.choices[0].message.content or "")["city"] in city["enum"]


def test_it_calls_the_tool_that_it_is_ordered_to(ai: openai.OpenAI) -> None:
    city = {"type": "string", "enum": ["Rome", "Oslo"]}
    schema = {"type": "object", "properties": {"city": city}, "required": ["city"], "additionalProperties": False}
    offered: Any = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
    values: Any = {"model": "ragsite/docs", "messages": QUESTION, "max_tokens": 64, "temperature": 0, "tools": offered}
    ordered = values | {"tool_choice": {"type": "function", "function": {"name": "weather"}}}
    choice = ai.chat.completions.create(**ordered).choices[0]
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and json.loads(call.function.arguments)["city"] in city["enum"]
    pieces = [piece.choices[0] for piece in ai.chat.completions.create(**ordered, stream=True)]
    (again,) = [called for piece in pieces for called in piece.delta.tool_calls or []]
    assert again.function.arguments == call.function.arguments and pieces[-1].finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    told = values | {"messages": [*QUESTION, choice.message, result], "tool_choice": "none"}
    assert ai.chat.completions.create(**told).choices[0].message.content


def running() -> float:
    """How many requests the server is at."""
    exported = httpx.get(LLM_SERVER.removesuffix("/v1") + "/metrics")
    found = re.search(r"^vllm:num_requests_running\S* (\S+)", exported.text, re.MULTILINE)
    if found is None:
        pytest.skip("this server does not tell how many requests run")
    return float(found.group(1))


def test_a_reader_who_leaves_frees_it(reader: httpx.Client) -> None:
    assert running() == 0
    body = {"question": "When do backups run?", "stream": True, "max_tokens": 4_000}
    with reader.stream("POST", "/api/v1/answers", json=body) as response:
        lines = response.iter_lines()  # kept: httpx hangs up when it is forgotten
        next(line for line in lines if line.startswith("event: message"))
        wait_for(lambda: running() == 1, seconds=2, what="the request to show")
    wait_for(lambda: running() == 0, seconds=1, what="the request to end")


def test_so_does_one_who_cancels_a_chat(ai: openai.OpenAI) -> None:
    for _ in range(3):
        assert running() == 0
        chat = ai.chat.completions.create(model="ragsite/docs", messages=QUESTION, max_tokens=4_000, stream=True)
        pieces = iter(chat)
        next(piece for piece in pieces if piece.choices and piece.choices[0].delta.content)
        wait_for(lambda: running() == 1, seconds=2, what="the request to show")
        chat.close()
        wait_for(lambda: running() == 0, seconds=1, what="the request to end")
