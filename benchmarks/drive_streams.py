"""The readers of `generation`, in a process of their own: a plan on stdin, what they found on stdout, both as JSON.

They share two processors with what is measured, so a stream is kept as it comes and looked at when it has ended:
aiohttp on uvloop takes a quarter of what httpx and its lines took.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from bisect import bisect_left
from itertools import accumulate
from typing import Any

import aiohttp
import uvloop

OPENING = 64  # of the streams that are held, at once
_OURS = re.compile(rb'^event: message\ndata: \{"delta": ?"(.*)"\}\n', re.M)
_DIRECT = re.compile(rb'^data: .*"content": "([^"]+)"', re.M)
_FOUND = re.compile(rb"^event: search_results\ndata: (.*)\n", re.M)


async def _clients(plan: dict[str, Any]) -> list[dict[str, float]]:
    limits, patience = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=600)
    headers = {"Authorization": f"Bearer {plan['key']}"}
    async with aiohttp.ClientSession(connector=limits, timeout=patience, headers=headers) as http:
        if plan["kind"] == "held":
            return [await _held(http, plan)]
        until = time.perf_counter() + plan["seconds"]

        async def reader(number: int) -> list[dict[str, float]]:
            found = []
            turn = 0
            await asyncio.sleep(plan["spread"] * number / plan["readers"])
            url = plan["urls"][number % len(plan["urls"])]
            while time.perf_counter() < until:
                question = f"{plan['asked'][(number * 31 + turn) % len(plan['asked'])]} {number}.{turn}.{time.time()}"
                found.append(await _one(http, plan["kind"], url, question))
                turn += 1
            return found

        return [one for found in await asyncio.gather(*map(reader, range(plan["readers"]))) for one in found]


async def _one(http: aiohttp.ClientSession, kind: str, url: str, question: str) -> dict[str, float]:
    if kind == "direct":
        body: dict[str, Any] = {"model": "paced", "stream": True, "messages": [{"role": "user", "content": question}]}
    else:
        body = {"question": question, "stream": True}
    began = time.perf_counter()
    pieces, times = [], []
    async with http.post(url, json=body) as response:
        assert response.status == 200, await response.text()
        async for piece in response.content.iter_any():
            pieces.append(piece)
            times.append(time.perf_counter())
    said, ends = b"".join(pieces), list(accumulate(map(len, pieces)))
    # A token is a word: several that come at once may be one event.
    deltas = (_DIRECT if kind == "direct" else _OURS).finditer(said)
    came = [times[bisect_left(ends, one.end())] for one in deltas for _ in one.group(1).split()]
    found = _FOUND.search(said)
    return {
        "first": (came[0] - began) * 1000,
        "rate": sum(at > came[0] for at in came) / (came[-1] - came[0]),
        "retrieval": json.loads(found.group(1))["timings"]["total_ms"] if found else 0.0,
    }


async def _held(http: aiohttp.ClientSession, plan: dict[str, Any]) -> dict[str, float]:
    """So many streams of a model that never ends, all open at the same time."""
    began = time.perf_counter()
    opened, opening = asyncio.Semaphore(0), asyncio.Semaphore(OPENING)
    failed = 0
    took = 0.0
    over = asyncio.Event()

    async def one(number: int) -> None:
        nonlocal failed
        await opening.acquire()
        question = f"{plan['asked'][number % len(plan['asked'])]} script:drip"
        try:
            async with http.post(
                plan["urls"][number % len(plan["urls"])], json={"question": question, "stream": True}
            ) as response:
                assert response.status == 200, response.status
                seen = False
                async for line in response.content:
                    if line == b"event: message\n" and not seen:
                        seen = True
                        opened.release()
                        opening.release()
                    if line == b"event: error\n" or over.is_set():
                        failed += not over.is_set()
                        return
        except (aiohttp.ClientError, AssertionError):
            failed += 1
            opening.release()

    readers = [asyncio.create_task(one(number)) for number in range(plan["readers"])]
    open_ = 0
    try:
        async with asyncio.timeout(400):
            for _ in readers:
                await opened.acquire()
                open_ += 1
            took = time.perf_counter() - began
            await asyncio.sleep(plan["seconds"])
    except TimeoutError:
        took = time.perf_counter() - began
    over.set()
    for each in readers:
        each.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    return {"open": open_ - failed, "failed": failed, "took": took}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_clients(json.load(sys.stdin)))))
