"""The readers of `generation`, in a process of their own: a plan on stdin, what they found on stdout, both as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import httpx


async def _clients(plan: dict[str, Any]) -> list[dict[str, float]]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=120, limits=limits) as http:
        if plan["kind"] == "held":
            return [await _held(http, plan)]
        until = time.perf_counter() + plan["seconds"]

        async def reader(number: int) -> list[dict[str, float]]:
            found = []
            turn = 0
            while time.perf_counter() < until:
                question = f"{plan['asked'][(number * 31 + turn) % len(plan['asked'])]} {number}.{turn}.{time.time()}"
                found.append(await _one(http, plan, question))
                turn += 1
            return found

        return [one for found in await asyncio.gather(*map(reader, range(plan["readers"]))) for one in found]


async def _one(http: httpx.AsyncClient, plan: dict[str, Any], question: str) -> dict[str, float]:
    if plan["kind"] == "direct":
        body: dict[str, Any] = {"model": "paced", "stream": True, "messages": [{"role": "user", "content": question}]}
    else:
        body = {"question": question, "stream": True}
    began = time.perf_counter()
    first, pieces, name, retrieval, last = 0.0, 0, "", 0.0, 0.0
    headers = {"Authorization": f"Bearer {plan['key']}"}
    async with http.stream("POST", plan["url"], json=body, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: ") and (
                name == "message"
                or (plan["kind"] == "direct" and '"content": "' in line and '"content": ""' not in line)
            ):
                last = time.perf_counter()
                first = first or last
                pieces += 1
            elif line.startswith("data: ") and name == "search_results":
                retrieval = json.loads(line[6:])["timings"]["total_ms"]
    return {"first": (first - began) * 1000, "rate": (pieces - 1) / (last - first), "retrieval": retrieval}


async def _held(http: httpx.AsyncClient, plan: dict[str, Any]) -> dict[str, float]:
    """So many streams of a model that never ends, all open at the same time."""
    began = time.perf_counter()
    opened = asyncio.Semaphore(0)
    failed = 0
    took = 0.0
    over = asyncio.Event()
    headers = {"Authorization": f"Bearer {plan['key']}"}

    async def one(number: int) -> None:
        nonlocal failed
        question = f"{plan['asked'][number % len(plan['asked'])]} script:drip"
        try:
            async with http.stream(
                "POST", plan["url"], json={"question": question, "stream": True}, headers=headers
            ) as response:
                seen = False
                async for line in response.aiter_lines():
                    if line == "event: message" and not seen:
                        seen = True
                        opened.release()
                    if line == "event: error" or over.is_set():
                        failed += not over.is_set()
                        return
        except httpx.HTTPError:
            failed += 1

    readers = [asyncio.create_task(one(number)) for number in range(plan["readers"])]
    open_ = 0
    try:
        async with asyncio.timeout(100):
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
    print(json.dumps(asyncio.run(_clients(json.load(sys.stdin)))))
