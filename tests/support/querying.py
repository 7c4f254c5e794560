"""Asking for later, and following the events."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx

QUERIES = "/api/v1/queries"
ANSWER = "Backups run every night at 02:30 UTC [1]."  # of the fake model

Event = tuple[str, str, Any]


def ask(client: httpx.Client, question: str, **fields: Any) -> str:
    found = client.post(QUERIES, json={"question": question} | fields)
    assert found.status_code == 202, found.text
    assert found.json()["state"] == "queued" and found.json().keys() == {"id", "state"}
    return found.json()["id"]


def follow(
    client: httpx.Client, query: str, after: str = "", *, until: str = "", most: int = 10_000, seconds: float = 40
) -> list[Event]:
    """(id, name, data) of each event; `until` and `most` go away early."""
    found: list[Event] = []
    deadline = time.monotonic() + seconds
    headers = {"Last-Event-ID": after} if after else {}
    with client.stream("GET", f"{QUERIES}/{query}/events", headers=headers, timeout=30) as response:
        assert response.status_code == 200 and response.headers["content-type"] == "text/event-stream"
        lines: dict[str, str] = {}
        for line in response.iter_lines():
            assert time.monotonic() < deadline, found
            name, _, value = line.partition(": ")
            lines[name] = value
            if not line and "event" in lines:
                found.append((lines["id"], lines["event"], json.loads(lines["data"])))
                lines = {}
                if len(found) == most or (until and until in found[-1][2].get("delta", "")):
                    break
    return found


def told(events: list[Event]) -> str:
    """The text that the deltas tell."""
    text = ""
    for _, name, data in events:
        text = "" if name == "restart" else text + data["delta"] if name == "message" else text
    return text


def state(client: httpx.Client, query: str) -> dict[str, Any]:
    return client.get(f"{QUERIES}/{query}").json()
