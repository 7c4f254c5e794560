"""Backends: the client of OpenAI-compatible servers against one that misbehaves, and who takes over."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from itertools import count

import pytest
from django.test import override_settings
from prometheus_client import REGISTRY

from apps.generation import llm, sse, writing
from apps.generation.llm import ExtractiveLLM, FakeLLM, LLMError, OpenAICompatibleLLM, Patience
from apps.generation.llm.base import LLM
from apps.generation.llm.fake import Step
from apps.generation.prompts import messages
from apps.generation.types import Delta, Options, Task
from apps.generation.writing import Draft, Unwritten, write
from tests.support.fake_llm import NORMAL, FakeServer, fake_llm
from tests.support.hits import passages

PASSAGES = passages("Backups run every night at 02:30 UTC.", "Parking is free on Sundays.")
QUESTION = "When do backups run every night?"
TASK = Task(QUESTION, PASSAGES, messages(QUESTION, PASSAGES), Options(max_tokens=50, seed=3, stop=("END",)))


@pytest.fixture(scope="module")
def served() -> Iterator[FakeServer]:
    with fake_llm() as server:
        yield server


def backend(served: FakeServer, model: str, seconds: float = 5.0) -> OpenAICompatibleLLM:
    return OpenAICompatibleLLM(url=served.url, model=model, patience=Patience(first=seconds, next=seconds))


def read(llm: LLM, task: Task = TASK) -> list[Delta]:
    async def collect() -> list[Delta]:
        async with aclosing(llm.stream(task)) as deltas:
            return [delta async for delta in deltas]

    return asyncio.run(collect())


def written(*llms: LLM, live: bool = True) -> tuple[list[str], Draft]:
    draft = Draft()

    async def collect() -> list[str]:
        async with aclosing(write(TASK, llms, draft, live=live)) as pieces:
            return [piece async for piece in pieces]

    return asyncio.run(collect()), draft


def test_questions_that_come_first_together_find_the_same_models(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(ExtractiveLLM):
        def __init__(self) -> None:
            time.sleep(0.05)

    monkeypatch.setattr(llm, "ExtractiveLLM", Slow)
    llm.made.cache_clear()
    try:
        with ThreadPoolExecutor(4) as pool, override_settings(LLM_BACKEND="extractive"):
            found = {id(models[0]) for models in pool.map(lambda _: llm.configured(), range(4))}
        assert len(found) == 1
    finally:
        llm.made.cache_clear()


def test_a_completion_streams_with_usage_and_reason(served: FakeServer) -> None:
    deltas = read(backend(served, "normal"))
    assert "".join(delta.text for delta in deltas[:-1]) == "".join(NORMAL)
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].usage is not None and deltas[-1].usage.as_json()["total_tokens"] == 18
    sent = served.requests[-1]
    assert sent["messages"] == json.loads(json.dumps(TASK.messages))
    assert (sent["max_tokens"], sent["seed"], sent["stop"], sent["temperature"]) == (50, 3, ["END"], 0.0)
    assert sent["stream_options"] == {"include_usage": True} and "top_p" not in sent


def test_without_a_name_the_first_listed_model_is_asked(served: FakeServer) -> None:
    llm = backend(served, "")
    assert "".join(delta.text for delta in read(llm)) == "".join(NORMAL)
    assert asyncio.run(llm.model()) == "normal" == served.requests[-1]["model"]


def test_what_a_hosted_model_does_not_take_is_left_out(served: FakeServer) -> None:
    llm, asked = backend(served, "choosy"), len(served.requests)
    assert "".join(delta.text for delta in read(llm)) == "".join(NORMAL)
    sent = served.requests[asked:]
    assert [("max_tokens" in one, "temperature" in one) for one in sent] == [
        (True, True),
        (False, True),
        (False, False),
    ]
    assert sent[-1]["max_completion_tokens"] == TASK.options.max_tokens and sent[-1]["seed"] == TASK.options.seed
    wanted: dict[str, object] = {"type": "json_object"}
    read(llm, replace(TASK, response_format=wanted))
    assert len(served.requests) == asked + 4, "it is known by now"
    assert served.requests[-1]["response_format"] == wanted


def test_a_servers_message_is_not_told(served: FakeServer) -> None:
    with pytest.raises(LLMError) as raised:
        read(backend(served, "500"))
    assert raised.value.code == "server_error"
    assert "secret" not in str(raised.value), "it may hold the prompt"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("401", "unauthorized"),
        ("stall", "timeout"),
        ("silent", "timeout"),
        ("cut", "cut_off"),
        ("cut-early", "cut_off"),
        ("unended", "cut_off"),
        ("garbage", "bad_response"),
    ],
)
def test_each_failure_has_its_word(served: FakeServer, script: str, code: str) -> None:
    with pytest.raises(LLMError) as raised:
        read(backend(served, script, 0.7))
    assert raised.value.code == code


def test_a_server_that_is_not_there() -> None:
    for model in ("normal", ""):
        with pytest.raises(LLMError) as raised:
            read(OpenAICompatibleLLM(url="http://127.0.0.1:9/v1", model=model, patience=Patience(first=3)))
        assert raised.value.code == "unreachable"


def test_closing_the_stream_stops_the_server(served: FakeServer) -> None:
    before = served.dropped

    async def leave() -> None:
        async with aclosing(backend(served, "slow").stream(TASK)) as deltas:
            async for _ in deltas:
                break
        deadline = time.monotonic() + 5
        while served.dropped == before and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    asyncio.run(leave())
    assert served.dropped == before + 1


def test_only_known_markers_leave(served: FakeServer) -> None:
    pieces, draft = written(backend(served, "bogus"))
    assert "".join(pieces) == draft.text == "Backups run every night at 02:30 UTC [1] and or so [1]."


@pytest.mark.parametrize("script", ["500", "silent", "cut-early", "empty"])
def test_a_failure_before_the_first_word_is_answered_by_the_next(served: FakeServer, script: str) -> None:
    pieces, draft = written(backend(served, script, 0.7), ExtractiveLLM())
    assert draft.model == "extractive"
    assert "".join(pieces) == draft.text == "Backups run every night at 02:30 UTC. [1]"


@pytest.mark.parametrize("script", ["stall", "cut"])
def test_a_failure_after_the_first_word_is_an_error_for_a_reader(served: FakeServer, script: str) -> None:
    with pytest.raises(LLMError) as raised:
        written(backend(served, script, 0.7), ExtractiveLLM())
    assert not isinstance(raised.value, Unwritten)
    pieces, draft = written(backend(served, script, 0.7), ExtractiveLLM(), live=False)
    assert draft.model == "extractive", "nobody has read the beginning"
    assert pieces == [draft.text]


def test_a_fake_model_plays_its_script() -> None:
    def script(task: Task) -> Iterable[Step]:
        yield from ("Yes [", "2", "] and [9]", 0.001, " no.")

    pieces, draft = written(FakeLLM(script))
    assert draft.text == "".join(pieces) == "Yes [2] and no."
    assert draft.model == "fake"


def test_where_all_fail_nothing_is_written() -> None:
    def script(task: Task) -> Iterable[Step]:
        yield LLMError("cut_off", "scripted")

    with pytest.raises(Unwritten) as raised:
        written(FakeLLM(script), FakeLLM(script))
    assert raised.value.code == "cut_off"


def test_of_a_reader_that_stays_and_reads_nothing_the_model_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "STALLED_SECONDS", 0.05)
    told = FakeLLM(lambda task: (f"{number} " for number in count()))

    async def frames() -> AsyncGenerator[str, None]:
        async with aclosing(told.stream(TASK)) as deltas:
            async for delta in deltas:
                yield delta.text

    async def stalled() -> list[bytes]:
        made = aiter(sse.beating(frames()))
        first = await anext(made)
        async with asyncio.timeout(5):
            while not told.closed:
                await asyncio.sleep(0.01)
        return [first, *[piece async for piece in made]]

    said = b"".join(asyncio.run(stalled())).decode().split()
    assert said == [str(number) for number in range(len(said))] and len(said) >= sse.AHEAD, "what was ahead is told"


def test_a_quiet_stream_has_a_heartbeat_and_a_left_one_is_closed() -> None:
    llm = FakeLLM(lambda task: ["one ", 0.22, "two", 60.0, "three"])

    async def frames() -> list[bytes]:
        async def texts() -> object:
            async with aclosing(llm.stream(TASK)) as deltas:
                async for delta in deltas:
                    yield delta.text

        found: list[bytes] = []
        beating = sse.beating(texts(), seconds=0.05)  # type: ignore[arg-type]
        async with aclosing(beating) as made:  # type: ignore[type-var]
            async for frame in made:
                found.append(frame)
                if frame == b"two":
                    break
        return found

    started = time.monotonic()
    found = asyncio.run(frames())
    assert found[0] == b"one " and found[-1] == b"two" and sse.HEARTBEAT.encode() in found
    assert llm.closed == 1 and time.monotonic() - started < 5


def test_an_error_in_the_frames_reaches_the_reader_of_the_stream() -> None:
    async def texts() -> object:
        yield "one"
        raise ValueError("scripted")

    async def collect() -> None:
        async for _ in sse.beating(texts()):  # type: ignore[arg-type]
            pass

    with pytest.raises(ValueError, match="scripted"):
        asyncio.run(collect())


def test_a_model_that_does_not_say_in_time_where_sentences_are_from_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ASK_SECONDS", 0.05)

    def script(task: Task) -> Iterable[Step]:
        yield "You sleep while copies happen." if task.response_format is None else 60.0

    llm, draft = FakeLLM(script), Draft()
    errors = REGISTRY.get_sample_value("llm_requests_total", {"backend": "fake", "outcome": "error"}) or 0
    began = time.monotonic()

    async def collect() -> list[str]:
        async with aclosing(write(replace(TASK, attribution="model"), (llm,), draft, live=True)) as pieces:
            return [piece async for piece in pieces]

    assert asyncio.run(collect()) == ["You sleep while copies happen."]
    assert time.monotonic() - began < 5 and llm.closed == 1
    assert REGISTRY.get_sample_value("llm_requests_total", {"backend": "fake", "outcome": "error"}) == errors + 1
