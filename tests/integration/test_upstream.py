"""A model's server that fails is asked again, then not at all, then by one request; by all processes alike."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings

from apps.documents.embedding.openai_compatible import estimate_tokens
from apps.generation.llm import FakeLLM, LLMError, OpenAICompatibleLLM, Patience, Upstream
from apps.generation.llm import breaker as breakers
from apps.generation.llm.allowance import Allowance
from apps.generation.llm.breaker import Breaker
from apps.generation.prompts import messages
from apps.generation.types import Delta, Task
from tests.support.fake_llm import NORMAL, FakeServer, fake_llm
from tests.support.hits import passages

PASSAGES = passages("Backups run every night at 02:30 UTC.")
TASK = Task("When?", PASSAGES, messages("When?", PASSAGES))


@pytest.fixture(scope="module")
def served() -> Iterator[FakeServer]:
    with fake_llm() as server:
        yield server


def upstream(served: FakeServer, script: str, name: str, *, places: int = 10, seconds: float = 15.0) -> Upstream:
    llm = OpenAICompatibleLLM(url=served.url, model=script, patience=Patience(first=5, next=5))
    return Upstream(llm, Breaker(name, seconds=seconds), places=places, first_seconds=3)


def read(llm: Upstream) -> list[Delta]:
    async def collect() -> list[Delta]:
        async with aclosing(llm.stream(TASK)) as deltas:
            return [delta async for delta in deltas]

    return asyncio.run(collect())


def refused(llm: Upstream) -> str:
    with pytest.raises(LLMError) as raised:
        read(llm)
    return raised.value.code


def asked(served: FakeServer, script: str) -> int:
    return served.scripts.count(script)


def test_what_passes_is_tried_again(database: None, served: FakeServer) -> None:
    assert "".join(delta.text for delta in read(upstream(served, "429-then-ok", uuid4().hex))) == "".join(NORMAL)
    assert asked(served, "429-then-ok") == 2


def test_a_failing_server_is_tried_a_bounded_number_of_times_and_what_is_our_fault_once(
    database: None, served: FakeServer
) -> None:
    assert refused(upstream(served, "500", uuid4().hex)) == "server_error" and asked(served, "500") == 3
    assert refused(upstream(served, "401", uuid4().hex)) == "unauthorized" and asked(served, "401") == 1


def test_a_server_that_asks_to_be_left_alone_is(database: None, served: FakeServer) -> None:
    assert refused(upstream(served, "429-later", uuid4().hex)) == "rate_limited" and asked(served, "429-later") == 1


def test_nothing_is_tried_again_once_a_reader_has_seen_the_beginning(database: None, served: FakeServer) -> None:
    assert refused(upstream(served, "cut", uuid4().hex)) == "cut_off" and asked(served, "cut") == 1


def test_all_tries_together_have_the_time_of_one(database: None, served: FakeServer) -> None:
    began = time.monotonic()
    assert refused(upstream(served, "silent", uuid4().hex)) == "timeout"
    assert time.monotonic() - began < 4.5


def test_the_breaker_opens_in_all_processes_and_one_request_finds_out_that_it_may_close(
    database: None, served: FakeServer
) -> None:
    name = uuid4().hex
    bad = upstream(served, "500", name, seconds=3)
    before = asked(served, "500")
    for _ in range(breakers.FAILURES):
        assert refused(bad) == "server_error"
    assert asked(served, "500") == before + 3 * breakers.FAILURES
    assert refused(bad) == "open" and asked(served, "500") == before + 3 * breakers.FAILURES

    other = f"""
import django, sys; django.setup()
from apps.generation.llm import LLMError
from apps.generation.llm.breaker import Breaker
from apps.access.redis import redis_client
import asyncio
try: asyncio.run(Breaker({name!r}, seconds=60).admit()); print("admitted")
except LLMError as error: print(error.code)
"""
    told = subprocess.run(
        [sys.executable, "-c", other],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"REDIS_URL": settings.REDIS_URL},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.stdout.strip() == "open", (settings.REDIS_URL, told.stderr)

    time.sleep(3.2)
    slow = Upstream(FakeLLM(lambda task: [0.5, "Yes.", 0.5]), Breaker(name, seconds=3), places=10, first_seconds=3)

    async def many() -> list[str]:
        async def one() -> str:
            try:
                async with aclosing(slow.stream(TASK)) as deltas:
                    return "".join([delta.text async for delta in deltas])
            except LLMError as error:
                return error.code

        return await asyncio.gather(*(one() for _ in range(8)))

    outcomes = asyncio.run(many())
    assert sorted(outcomes) == ["Yes.", *["open"] * 7], outcomes
    assert "".join(delta.text for delta in read(upstream(served, "normal", name, seconds=3))) == "".join(NORMAL)


def test_a_probe_that_fails_keeps_it_open(database: None, served: FakeServer) -> None:
    name = uuid4().hex
    bad = upstream(served, "401", name, seconds=1)
    for _ in range(breakers.FAILURES):
        refused(bad)
    assert refused(bad) == "open"
    time.sleep(2.1)  # (it opened within a second of the clock)
    assert refused(bad) == "unauthorized" and refused(bad) == "open"


def test_whoever_fails_late_does_not_end_anothers_probe(database: None) -> None:
    async def late() -> None:
        name = uuid4().hex
        one, other = Breaker(name, seconds=0.1), Breaker(name, seconds=0.1)
        for _ in range(breakers.FAILURES):
            await one.failed()
        await asyncio.sleep(1.2)
        assert await one.admit()
        await other.failed()
        await asyncio.sleep(1.2)
        with pytest.raises(LLMError, match="another request tries it now"):
            await other.admit()
        await one.let_go()
        assert await other.admit()

    asyncio.run(late())


def test_a_probe_whose_reader_leaves_lets_another_ask(database: None, served: FakeServer) -> None:
    name = uuid4().hex
    for _ in range(breakers.FAILURES):
        refused(upstream(served, "401", name))
    time.sleep(2.1)

    async def leave() -> None:
        silent = upstream(served, "silent", name, seconds=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), aclosing(silent.stream(TASK)) as deltas:
                await anext(deltas)

    asyncio.run(leave())
    assert "".join(delta.text for delta in read(upstream(served, "normal", name, seconds=1))) == "".join(NORMAL)


def test_what_is_not_asked_uses_up_no_allowance(database: None, served: FakeServer) -> None:
    name = uuid4().hex
    for _ in range(breakers.FAILURES):
        refused(upstream(served, "401", name))
    llm = OpenAICompatibleLLM(url=served.url, model="normal")
    allowance = Allowance(name, requests=1, tokens=0)
    limited = Upstream(llm, Breaker(name, seconds=1), places=9, first_seconds=5, allowance=allowance)
    assert [refused(limited) for _ in range(3)] == ["open"] * 3
    time.sleep(2.1)
    read(limited)
    assert refused(limited) == "limited"


def test_a_probe_without_allowance_lets_another_ask(database: None, served: FakeServer) -> None:
    name = uuid4().hex
    for _ in range(breakers.FAILURES):
        refused(upstream(served, "401", name))
    time.sleep(2.1)
    llm = OpenAICompatibleLLM(url=served.url, model="normal")
    used = Allowance(name, requests=1, tokens=0)
    used.take(1)
    limited = Upstream(llm, Breaker(name, seconds=1), places=9, first_seconds=5, allowance=used)
    assert refused(limited) == "limited"
    read(upstream(served, "normal", name, seconds=1))


def test_each_try_is_a_request(database: None, served: FakeServer) -> None:
    name, before = uuid4().hex, asked(served, "500")
    llm = OpenAICompatibleLLM(url=served.url, model="500")
    allowance = Allowance(name, requests=4, tokens=0)
    limited = Upstream(llm, Breaker(name), places=9, first_seconds=5, allowance=allowance)
    assert [refused(limited) for _ in range(3)] == ["server_error", "server_error", "limited"]
    assert asked(served, "500") == before + 4


def test_what_was_written_for_a_reader_who_left_counts(database: None, served: FakeServer) -> None:
    name, prompt = uuid4().hex, sum(estimate_tokens(each["content"]) for each in TASK.messages)
    allowance = Allowance(name, requests=0, tokens=2 * prompt + 3)
    llm = OpenAICompatibleLLM(url=served.url, model="slow")
    limited = Upstream(llm, Breaker(name), places=9, first_seconds=5, allowance=allowance)

    async def leave() -> None:
        async with aclosing(limited.stream(TASK)) as deltas:
            for _ in range(8):
                await anext(deltas)

    asyncio.run(leave())
    again = OpenAICompatibleLLM(url=served.url, model="normal")
    limited = Upstream(again, Breaker(name), places=9, first_seconds=5, allowance=allowance)
    assert refused(limited) == "limited"


def test_the_name_of_a_servers_model_is_asked_for_while_the_server_is_worth_asking(database: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, and says nothing
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        nameless = OpenAICompatibleLLM(url=url, patience=Patience(first=0.2))
        llm = Upstream(nameless, Breaker(uuid4().hex), places=9, first_seconds=0.2)
        codes = []
        for _ in range(breakers.FAILURES + 1):
            with pytest.raises(LLMError) as raised:
                asyncio.run(llm.model())
            codes.append(raised.value.code)
        assert codes == [*["timeout"] * breakers.FAILURES, "open"]


def test_a_success_between_them_is_no_row_of_failures(database: None, served: FakeServer) -> None:
    name = uuid4().hex
    for _ in range(3):
        for _ in range(breakers.FAILURES - 1):
            assert refused(upstream(served, "401", name)) == "unauthorized"
        read(upstream(served, "normal", name))


def test_more_than_may_are_refused_at_once_and_a_place_is_free_when_its_reader_leaves(
    database: None, served: FakeServer
) -> None:
    slow = upstream(served, "slow", uuid4().hex, places=2)

    async def crowd() -> list[str]:
        async with aclosing(slow.stream(TASK)) as one, aclosing(slow.stream(TASK)) as two:
            await anext(one)
            await anext(two)
            with pytest.raises(LLMError) as raised:
                await anext(slow.stream(TASK))
            codes = [raised.value.code]
            await one.aclose()
            async with aclosing(slow.stream(TASK)) as three:
                codes.append((await anext(three)).text and "written")
            return codes

    assert asyncio.run(crowd()) == ["busy", "written"]


def test_no_more_is_asked_in_a_minute_than_may_be(database: None, served: FakeServer) -> None:
    def limited(name: str, **of: int) -> Upstream:
        allowance = Allowance(name, **({"requests": 0, "tokens": 0} | of))
        llm = OpenAICompatibleLLM(url=served.url, model="normal")
        return Upstream(llm, Breaker(name), places=9, first_seconds=5, allowance=allowance)

    name = uuid4().hex
    read(limited(name, requests=2))
    read(limited(name, requests=2))  # another process's, by the same name
    before = len(served.requests)
    assert refused(limited(name, requests=2)) == "limited" and len(served.requests) == before
    read(limited(uuid4().hex, requests=2))

    prompt = sum(estimate_tokens(each["content"]) for each in TASK.messages)
    name = uuid4().hex
    read(limited(name, tokens=2 * prompt + 3))  # and 7 are written
    assert refused(limited(name, tokens=2 * prompt + 3)) == "limited"
    read(limited(uuid4().hex, tokens=prompt // 2))  # more than a whole minute's waits for an empty one


def test_without_redis_the_server_is_asked(served: FakeServer, no_redis: None) -> None:
    llm = OpenAICompatibleLLM(url=served.url, model="normal")
    allowance = Allowance("x", requests=1, tokens=1)
    found = read(Upstream(llm, Breaker("x"), places=1, first_seconds=5, allowance=allowance))
    assert "".join(delta.text for delta in found) == "".join(NORMAL)
