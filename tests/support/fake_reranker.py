"""A reranking server that speaks `/rerank` and `/score` and misbehaves on request.

It scores like the fake backend, plus what a text asks for as `score:<number>`. `script:<name>` in the query: `500`,
`401`, `404`, `429`, `slow` (answers when `go` is set, or after `seconds`), `drip` (a byte at a time, without end),
`cut` (the connection breaks in the middle), `html`, `garbage`, `short` (one result too few), `twice` (an index twice),
`beyond` (an index that no text has), `nan`, `text` (scores as strings), `flag` (an index that is `true`), `deep`
(nested too deeply), `huge`.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from apps.retrieval.rerank.fake import FakeReranker

from .processes import free_port


class FakeRerankServer:
    """The ASGI app; `requests`: (path, headers, body) of each. `during` is called while a request waits for its answer:
    what happens in the world while a model works."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.go = threading.Event()
        self.seconds = 60.0
        self.during: Callable[[], None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        content = b""
        while True:
            message = await receive()
            content += message.get("body", b"")
            if not message.get("more_body"):
                break
        body = json.loads(content)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append((scope["path"], headers, body))
        if self.during is not None:
            await asyncio.to_thread(self.during)
        query = body.get("query") or body["text_1"]
        texts = body.get("documents") or body["text_2"]
        asked = re.search(r"script:(\w+)", query)
        script = asked.group(1) if asked else ""
        if script.isdigit():
            await _send(send, int(script), json.dumps({"error": {"message": f"echo: {query}"}}).encode())
            return
        if script == "slow":
            await asyncio.to_thread(self.go.wait, self.seconds)
        if script in ("drip", "cut"):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9999")]})
            for _ in range(9000 if script == "drip" else 3):
                await send({"type": "http.response.body", "body": b" ", "more_body": True})
                await asyncio.sleep(0.05)
            raise ConnectionResetError("scripted")
        await _send(send, 200, _spoilt(script, _answer(scope["path"], query, texts)))


def _answer(path: str, query: str, texts: list[str]) -> dict[str, Any]:
    scores = FakeReranker().scores(query, texts)
    told = [re.search(r"score:(-?[\d.]+\d)", text) for text in texts]
    scores = [score + (float(found.group(1)) if found else 0) for score, found in zip(scores, told, strict=True)]
    if path.endswith("/score"):
        data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)]
        return {"id": "score-1", "object": "list", "model": "m", "data": data, "usage": {}}
    rows = [
        {"index": index, "relevance_score": score, "document": {"text": texts[index]}}
        for index, score in enumerate(scores)
    ]
    rows.sort(key=lambda row: -row["relevance_score"])
    return {"id": "rerank-1", "model": "m", "results": rows, "usage": {"total_tokens": 1}}


def _spoilt(script: str, answer: dict[str, Any]) -> bytes:
    name, score = ("data", "score") if "data" in answer else ("results", "relevance_score")
    rows = answer[name]
    match script:
        case "html":
            return b"<html>proxy</html>"
        case "garbage":
            answer = {"no": "list"}
        case "short":
            answer[name] = rows[:-1]
        case "twice":
            rows[0]["index"] = rows[-1]["index"]
        case "beyond":
            rows[0]["index"] = len(rows)
        case "nan":
            rows[0][score] = float("nan")
        case "text":
            rows[0][score] = "0.5"
        case "flag":
            rows[0]["index"] = True
        case "deep":
            return b"[" * 100_000
        case "huge":
            return b" " * (33 * 2**20)
    return json.dumps(answer).encode()


async def _send(send: Any, status: int, content: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@contextmanager
def fake_reranker() -> Iterator[FakeRerankServer]:
    """The server, running in a thread; its `url` ends before the protocol's word."""
    app, port = FakeRerankServer(), free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < deadline, "the fake reranker does not start"
        time.sleep(0.01)
    app.url = f"http://127.0.0.1:{port}"
    try:
        yield app
    finally:
        app.go.set()
        server.should_exit = server.force_exit = True
        thread.join(10)
