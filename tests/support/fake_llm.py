"""A language-model server that speaks OpenAI's protocol and misbehaves on request.

The model's name, or `script:<name>` in the question, is the script: `normal`, `429-then-ok`, `429-later` (in 30 s),
`500`, `401`, `stall` (a few tokens, then silence), `silent` (headers, then silence), `cut` (the connection breaks in
the middle), `cut-early` (before the first token), `unended` (no finish_reason), `bogus` (markers that name no passage),
`length` (max_tokens ends it within a marker), `empty`, `garbage` (no JSON), `slow` (for ever), `drip` (a word a second,
for ever), `held` (a few tokens, and the rest when `go` is set), `paced` (100 tokens, 10 ms each, after 50 ms), `json`,
`json-late` (prose until it is told that this was not asked for), `plain` (no markers), `free` (none, and a sentence in
its own words), `astray` (those of passages that say something else), `json-unguided` (refuses a response_format),
`json-cut`, `choosy` (takes neither max_tokens nor a temperature, as newer hosted models), `json-none` (says that the
sources do not answer), `json-sorry` (the same in JSON), `json-free` (as `free`), `reused` (4 tokens of the prompt were
cached), `counting` (1e30 of it were read), `call` (two of the tools, where there are any and one may be called, once),
`call-cut` (the connection breaks within a call), `tell-and-call` (a sentence before it).

By itself (`python -m tests.support.fake_llm`) it prints its URL and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from .processes import free_port

NORMAL = ("Backups run ", "every night ", "at 02:30 UTC ", "[", "1", "]", ".")
BOGUS = (
    "Backups run every night at 02:30 UTC [",
    "1][",
    "97",
    "] and [2024] or [Source 98, 99]",
    " so [1, 96].",
)
_SAID = '{"when": "Backups run every night at 02:30 UTC [1, 97].", "days": [35], "kept": "For 35 days [1]."}'
ASTRAY = ("Backups cost 99 euros a month ", "[2].", " They run at night [3][1].")
FREE = (
    "The backups run every ",
    "night at 02:30 UTC. ",
    "You can go back about a month",
    ". They are kept for 35 days.",
)
PLAIN = ("The backups run every ", "night at 02:30 UTC. ", "They are kept for 35 days", ". They cost 99 euros", ".")
JSON = {
    "json-none": ("The sources do not answer ", "this question."),
    "json": (_SAID[:40], _SAID[40:]),
    "json-unguided": ("```json\n", _SAID, "\n```"),
    "json-cut": (_SAID[:60],),
    "json-sorry": ('{"a": "The sources do not answer this question."}',),
    "json-free": (
        json.dumps(
            {"a": "Backups run every night at 02:30 UTC.", "b": [f"{FREE[2]}. Nobody knows more.", PLAIN[2] + "."]}
        ),
    ),
}
FIRST_MS, TOKENS = 50, 100
EACH_MS = float(os.environ.get("FAKE_EACH_MS", "10"))
DRIP_SECONDS = float(os.environ.get("FAKE_DRIP_SECONDS", "1"))
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
#: Calls of two tools, as a server streams them: who is called first, then what it is given, piece by piece.
CALLS: tuple[dict[str, Any], ...] = (
    {"index": 0, "id": "call_a", "type": "function", "function": {"name": "weather", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"city": '}},
    {"index": 0, "function": {"arguments": '"Rome [1]"}'}},
    {"index": 1, "id": "call_b", "type": "function", "function": {"name": "time", "arguments": "{"}},
    {"index": 1, "function": {"arguments": "}"}},
)


class FakeServer:
    """The ASGI app; `requests` and `headers` are what it got, `dropped` counts streams whose client went away."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.scripts: list[str] = []
        self.dropped = 0
        self.go = threading.Event()
        self.condensed = "How long are| backups kept?"  # what it makes of a question in a conversation
        self.fails = ""  # the script of every request, whatever it asks for
        self.sources: str | list[dict[str, Any]] = []  # where it finds sentences to be from, or the script of that

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"].endswith("/models"):
            body = {
                "object": "list",
                "data": [{"id": "normal", "object": "model"}, {"id": "other", "object": "model"}],
            }
            await _whole(send, 200, body)
            return
        content = b""
        while True:
            message = await receive()
            content += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = json.loads(content)
        self.requests.append(request)
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        said = [str(message.get("content")) for message in reversed(request["messages"])]
        asked = next((found for text in said if (found := re.search(r"script:([\w-]+)", text))), None)
        script = self.fails or (asked.group(1) if asked else request["model"])
        if request["messages"][0]["content"].startswith("Rewrite the last question"):
            script = "500" if script == "condense-500" else "condense"
        if request["messages"][0]["content"].startswith("You find where the sentences"):
            script = self.sources if isinstance(self.sources, str) else "sources"
        self.scripts.append(script)
        first = self.scripts.count(script) == 1
        if script == "429-later":
            await _whole(send, 429, {"error": {"message": "slow down"}}, ("retry-after", "30"))
        elif script == "429-then-ok" and first:
            await _whole(send, 429, {"error": {"message": "slow down"}}, ("retry-after-ms", "10"))
        elif script == "json-unguided" and "response_format" in request:
            await _whole(send, 400, {"error": {"message": "response_format is not supported"}})
        elif script == "choosy" and (refused := next((p for p in ("max_tokens", "temperature") if p in request), None)):
            await _whole(send, 400, {"error": {"message": f"Unsupported parameter: '{refused}' is not supported."}})
        elif script in ("500", "401"):
            await _whole(send, int(script), {"error": {"message": "secret prompt"}}, ("retry-after-ms", "10"))
        else:
            gone = asyncio.create_task(receive())
            if script == "json-late" and "not what was asked for" in said[0]:
                script = "json"
            told = request["messages"][-1]["role"] == "tool"
            if "call" in script and (told or not request.get("tools") or request.get("tool_choice") == "none"):
                script = "normal"
            stream = asyncio.create_task(self._stream(script, send))
            await asyncio.wait({gone, stream}, return_when=asyncio.FIRST_COMPLETED)
            if not stream.done():
                self.dropped += 1
                stream.cancel()
            gone.cancel()
            await asyncio.gather(gone, stream, return_exceptions=True)
            if "cut" in script:
                raise ConnectionResetError("scripted")

    async def _stream(self, script: str, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        if script == "paced":
            await asyncio.sleep(FIRST_MS / 1000)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        silent = dict.fromkeys(("empty", "silent", "cut-early", "paced", "call", "call-cut"), ())
        said = (
            JSON
            | silent
            | {"astray": ASTRAY, "bogus": BOGUS, "plain": PLAIN, "free": FREE, "free-call": FREE}
            | {"condense": tuple(self.condensed.split("|")), "sources": (json.dumps({"sources": self.sources}),)}
        )
        pieces = said.get(script, NORMAL)
        await _event(send, {"choices": [_choice({"role": "assistant", "content": ""})]})
        if script == "garbage":
            await send({"type": "http.response.body", "body": b"data: {nonsense\n\n", "more_body": True})
        for index, piece in enumerate(pieces):
            if script == "cut" and index == 3:
                return
            if script == "length" and index == 5:
                break
            while script == "held" and index == 3 and not self.go.is_set():
                await asyncio.sleep(0.02)
            if script == "stall" and index == 3:
                await asyncio.sleep(60)
            await _event(send, {"choices": [_choice({"content": piece})]})
        for call in CALLS if "call" in script else ():
            if script == "call-cut" and call["index"] == 1:
                return
            await _event(send, {"choices": [_choice({"tool_calls": [call]})]})
        if script == "paced":
            due = time.monotonic()
            for number in range(TOKENS):
                word = f"word{number} " if number < TOKENS - 1 else "words [1]."
                await _event(send, {"choices": [_choice({"content": word})]})
                due += EACH_MS / 1000
                await asyncio.sleep(max(0, due - time.monotonic()))
        if script == "cut-early":
            return
        if script == "silent":
            await asyncio.sleep(60)
        while script == "slow":
            await _event(send, {"choices": [_choice({"content": "and on "})]})
            await asyncio.sleep(0.02)
        while script == "drip":
            await _event(send, {"choices": [_choice({"content": "on "})]})
            await asyncio.sleep(DRIP_SECONDS)
        if script != "unended":
            reason = "length" if script == "length" else "tool_calls" if "call" in script else "stop"
            await _event(send, {"choices": [_choice({}, reason)]})
            details = {"cached_tokens": 4} if script == "reused" else None
            counted = (
                USAGE | {"prompt_tokens_details": details} | ({"prompt_tokens": 1e30} if script == "counting" else {})
            )
            await _event(send, {"choices": [], "usage": counted})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


def _choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason}


async def _event(send: Any, body: dict[str, Any]) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"} | body
    await send({"type": "http.response.body", "body": f"data: {json.dumps(chunk)}\n\n".encode(), "more_body": True})


async def _whole(send: Any, status: int, body: dict[str, Any], *headers: tuple[str, str]) -> None:
    pairs = [(b"content-type", b"application/json"), *((k.encode(), v.encode()) for k, v in headers)]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


@contextmanager
def fake_llm() -> Iterator[FakeServer]:
    """The server, running in a thread; its `url` ends in /v1."""
    app, port = FakeServer(), free_port()
    config = uvicorn.Config(app, port=port, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < deadline, "the fake language model does not start"
        time.sleep(0.01)
    app.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield app
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(10)


if __name__ == "__main__":
    with fake_llm() as running:
        print(running.url, flush=True)
        threading.Event().wait()
