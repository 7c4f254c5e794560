"""Streams of answers beside the model's own server: the first token, tokens a second, many streams at once.

The model's server is scripted (tests/support/fake_llm.py, script `paced`): 50 ms to its first token, then one every
10 ms (FAKE_EACH_MS), 100 in all; it and the clients have a process each. Direct and through us by turns, with 1, 16 and
64 readers that begin at the same moment, and that are spread over the time of an answer; by one web process and by two.
What is asked of the first token is the direct one's, and the retrieval that the answer itself tells, and 10 ms (p50) or
25 ms (p95).

Then, of one web process: answers that are given again (cached); answers by a model that cites wrongly in every third,
each verified; quotes while the breaker is open, because the model's server has failed five times; and as many slow
streams at once as BENCH_STREAMS says (a word a second each, or one in FAKE_DRIP_SECONDS), with the memory that the
process has taken, or as many as BENCH_WEBS says. BENCH_PARTS names some of these parts (streams, again, wrongly, open,
many).
"""

from __future__ import annotations

import io
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import psutil

from apps.documents import merge
from apps.documents.accept import Submission
from tests.support import fake_llm
from tests.support.processes import Server

from .corpus import passages, queries
from .stack import house

READERS = (1, 16, 64)
TURNS = 4  # of each, by turns
ANSWER_SECONDS = 0.1 + fake_llm.TOKENS * fake_llm.EACH_MS / 1000
SECONDS = max(4.0, 2 * ANSWER_SECONDS)
WEBS = int(os.environ.get("BENCH_WEBS", "1"))
PARTS = os.environ.get("BENCH_PARTS", "streams,again,wrongly,open,many").split(",")
STREAMS = [int(count) for count in os.environ.get("BENCH_STREAMS", "500,2000").split(",")]
DOCUMENTS = 300
WRONGLY = 1000


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    collection, key = house("generation")
    sent = [
        Submission(io.BytesIO(text.encode()), "text/plain", "", source_uri=str(number))
        for number, text in enumerate(passages(DOCUMENTS))
    ]
    assert set(merge.merge(collection=collection, submissions=sent)) == {merge.MERGED}
    own = {"LLM_MODEL": "paced", "LLM_MAX_CONCURRENT": "20000"}
    with _model() as url, Server(data, LLM_URL=url, **own) as web:
        if "streams" in PARTS:
            yield from _beside(url, [web], key, READERS)
            with Server(data, LLM_URL=url, **own) as other:
                yield from _beside(url, [web, other], key, READERS[1:])
        for name, part in {"again": _again, "wrongly": _wrongly, "open": _open}.items():
            if name in PARTS:
                yield from part(web, key)
    with _model() as url, ExitStack() as running:
        if "many" in PARTS:
            yield from _many([running.enter_context(Server(data, LLM_URL=url, **own)) for _ in range(WEBS)], key)


def _beside(url: str, webs: Sequence[Server], key: str, counts: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    """Readers that begin at the same moment, and such that are spread over the time that an answer takes."""
    asked = queries(200)
    for readers, spread in product(counts, (0.0, ANSWER_SECONDS)):
        if readers == 1 and spread:
            continue
        direct: list[dict[str, float]] = []
        ours: list[dict[str, float]] = []
        for turn in range(TURNS + 1):
            plans = {
                "direct": ([url + "/chat/completions"], direct),
                "ours": ([f"{web.url}/api/v1/answers" for web in webs], ours),
            }
            for name, (addresses, found) in plans.items():
                plan = {"kind": name, "urls": addresses, "key": key, "readers": readers, "spread": spread}
                told = _drive(plan | {"seconds": SECONDS, "asked": asked})
                if turn:  # the first warms up
                    found += told
        first = {name: [one["first"] for one in found] for name, found in (("direct", direct), ("ours", ours))}
        searched = [one["retrieval"] for one in ours]
        over = [_at(first["ours"], at) - _at(first["direct"], at) - _at(searched, at) for at in (0.5, 0.95)]
        rate = [statistics.median(one["rate"] for one in found) for found in (direct, ours)]
        said = f"{readers} readers{', spread' if spread else ''}, {len(webs)} web"
        yield (
            f"{said}: first token beyond direct and retrieval, p50, p95",
            "<= 10, 25 ms",
            f"{over[0]:+.1f}, {over[1]:+.1f} ms (direct {_both(first['direct'])}, ours {_both(first['ours'])},"
            f" retrieval {_both(searched)}; {len(ours)} answers)",
        )
        yield f"{said}: tokens/s over direct", ">= 0.97", f"{rate[1] / rate[0]:.3f} ({rate[1]:.0f})"


def _again(web: Server, key: str) -> Iterator[tuple[str, str, str]]:
    with web.client(key) as client:
        question = {"question": queries(201)[-1]}
        taken = []
        for _ in range(200):
            began = time.perf_counter()
            found = client.post("/api/v1/answers", json=question).json()
            taken.append((time.perf_counter() - began) * 1000)
        assert found["cached"], "it was not kept"
        yield "an answer given again", "p50 <= 5 ms", f"p50, p95 {_both(taken[20:])} ms"


def _wrongly(web: Server, key: str) -> Iterator[tuple[str, str, str]]:
    """Numbers of no passage, of several at once, and of passages that say something else."""
    scripts = ("normal", "normal", "bogus", "normal", "normal", "astray")

    def one(number: int) -> tuple[int, int, int, int]:
        with web.client(key) as client:
            question = f"{queries(200)[number % 200]} {number} script:{scripts[number % len(scripts)]}"
            body = client.post("/api/v1/answers", json={"question": question}).json()
            judged = client.get(f"/api/v1/answers/{body['id']}/verify").json()["citations"]
        cited = {citation["marker"] for citation in body["citations"]}
        uncited = sum(int(marker) not in cited for marker in re.findall(r"\[(\d+)\]", body["answer"]))
        unsupported = sum(not sentence["supported"] for sentence in body["sentences"])
        return len(judged), sum(each["verified"] for each in judged), uncited, unsupported

    with ThreadPoolExecutor(4) as clients:
        found = list(clients.map(one, range(WRONGLY)))
    cited, verified, uncited, unsupported = (sum(column) for column in zip(*found, strict=True))
    yield (
        f"{WRONGLY} answers, a third cited wrongly on purpose: citations that verify",
        "100 %",
        f"{verified} of {cited}; markers without a citation: {uncited}; sentences called unsupported: {unsupported}",
    )


def _open(web: Server, key: str) -> Iterator[tuple[str, str, str]]:
    with web.client(key) as client:
        for number in range(5):
            client.post("/api/v1/answers", json={"question": f"{queries(200)[number]} script:500"})
        taken, until = [], time.perf_counter() + 10  # it is asked again after 15 s
        for number in range(200):
            began = time.perf_counter()
            body = client.post("/api/v1/answers", json={"question": f"{queries(200)[number]} again"}).json()
            taken.append((time.perf_counter() - began) * 1000)
            assert body["degraded"] == "extractive", body["degraded"]
            if time.perf_counter() > until:
                break
        yield (
            "degraded answers while the breaker is open",
            "p95 <= 150 ms",
            f"p50, p95 {_both(taken)} ms ({len(taken)})",
        )


def _many(webs: Sequence[Server], key: str) -> Iterator[tuple[str, str, str]]:
    processes = [psutil.Process(web.running.process.pid) for web in webs]
    urls = [f"{web.url}/api/v1/answers" for web in webs]
    for count in STREAMS:
        plan = {"kind": "held", "urls": urls, "key": key, "readers": count, "asked": queries(50), "seconds": 10.0}
        (held,) = _drive(plan, watched=processes)
        memory = held.pop("memory") / 2**20
        yield (
            f"{count} slow streams at once, {len(webs)} web",
            ">= 2,000 each, <= 1 GiB",
            f"{held['open']:.0f} open, {held['failed']:.0f} failed, {memory:.0f} MiB in all,"
            f" the last after {held['took']:.1f} s",
        )


def _drive(plan: dict[str, Any], *, watched: Sequence[psutil.Process] = ()) -> list[dict[str, float]]:
    """What the clients found, in a process of their own."""
    client = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.drive_streams"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write(json.dumps(plan))
    client.stdin.close()
    most = 0
    while watched and client.poll() is None:
        most = max(
            most, sum(each.memory_info().rss for web in watched for each in [web, *web.children(recursive=True)])
        )
        time.sleep(0.2)
    found = json.loads(client.stdout.read())
    assert client.wait() == 0
    for one in found if watched else ():
        one["memory"] = most
    return found


def _at(samples: Sequence[float], share: float) -> float:
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * share))]


def _both(samples: Sequence[float]) -> str:
    return f"{_at(samples, 0.5):.1f}, {_at(samples, 0.95):.1f}"


class _model:
    """The scripted server, in a process of its own: its URL."""

    def __enter__(self) -> str:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fake_llm"], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
