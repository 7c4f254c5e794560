"""Events for a feed of ragsite: sending them until each has been answered for, and making them from Debezium's records.

Needs Python 3.11 and httpx, nothing of ragsite. How-to: feed-from-debezium.md.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

import httpx

Event = dict[str, Any]
Row = dict[str, Any]

BATCH_EVENTS, BATCH_CHARACTERS = 500, 4_000_000
LONGEST_PAUSE_SECONDS = 30
MAX_TITLE = 500
#: What Debezium puts in place of a long value that an update did not touch (its `unavailable.value.placeholder`).
UNAVAILABLE = "__debezium_unavailable_value"


def upsert(source_uri: str, version: int, text: str, title: str = "") -> Event:
    """What a row became. A row without text has no document."""
    if not text.strip():
        return delete(source_uri, version)
    return {"op": "upsert", "source_uri": source_uri, "version": version, "text": text, "title": title[:MAX_TITLE]}


def delete(source_uri: str, version: int) -> Event:
    return {"op": "delete", "source_uri": source_uri, "version": version}


def name_of(table: str, key: Iterable[Any]) -> str:
    """The source URI of a row: `schema.table/key`, a slash between the columns of the key."""
    return "/".join([table, *(quote(str(value), safe="") for value in key)])


class Feed:
    """A feed's events URL, `https://.../api/v1/sources/ID/events`, and a key with the scopes `read` and `write`."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._client = httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=120)

    def send(self, events: Iterable[Event]) -> list[tuple[Event, dict[str, Any]]]:
        """Send until every event is safe with ragsite, however long it is away; (event, problem) of those it refuses.

        Safe is what was answered with a 2xx, or with 409 `stale_version`: ragsite knows a version that is not lower.
        Raises httpx.HTTPStatusError where the feed itself is refused: no such key, no such source.
        """
        refused = []
        for batch in _batches(events):
            pauses = _pauses()
            while batch:
                answers = self._post(batch)
                again = batch[len(answers) :]
                for event, answer in zip(batch, answers, strict=False):
                    if answer["status"] == 429 or answer["status"] >= 500:
                        again.append(event)
                    elif answer["status"] >= 400 and answer.get("code") != "stale_version":
                        refused.append((event, answer))
                if again:
                    time.sleep(next(pauses))
                batch = again
        return refused

    def names(self, beginning: str) -> Iterator[str]:
        """The source URIs of the feed's collection that begin with this."""
        source = self._ask("GET", self.url.removesuffix("/events")).json()
        documents = (
            httpx.URL(self.url)
            .join("/api/v1/documents")
            .copy_merge_params({"collection": source["collection"], "limit": "200"})
        )
        page: dict[str, Any] = {"next": str(documents)}
        while page["next"]:
            page = self._ask("GET", page["next"]).json()
            yield from (each["source_uri"] for each in page["results"] if each["source_uri"].startswith(beginning))

    def _post(self, events: list[Event]) -> list[dict[str, Any]]:
        """The answers in order; fewer than events where the server went away meanwhile."""
        lines = "".join(json.dumps(event) + "\n" for event in events)
        response = self._ask("POST", self.url, content=lines, headers={"Content-Type": "application/x-ndjson"})
        return [json.loads(line) for line in response.content.splitlines()]

    def _ask(self, method: str, url: str, **request: Any) -> httpx.Response:
        """The response of a server that is well, waited for."""
        for pause in _pauses():
            try:
                response = self._client.request(method, url, **request)
                if response.status_code != 429 and response.status_code < 500:
                    return response.raise_for_status()
                why = f"status {response.status_code}"
            except httpx.TransportError as error:
                why = str(error)
            print(f"ragsite: {why}; trying again in {pause} s", file=sys.stderr)
            time.sleep(pause)
        raise AssertionError("pauses do not end")


def _pauses() -> Iterator[float]:
    """Seconds to wait after one failure, two, ..."""
    pause = 1
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _batches(events: Iterable[Event]) -> Iterator[list[Event]]:
    batch: list[Event] = []
    size = 0
    for event in events:
        batch.append(event)
        size += len(event.get("text", ""))
        if len(batch) == BATCH_EVENTS or size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def version_of(offset: int, generation: int = 1) -> int:
    """A version from a record's offset in its Kafka partition, which rises with every change of a row.

    generation: raised by hand when the offsets begin anew, because the topic was made again or got more partitions.
    """
    return generation * 2**40 + offset


def from_debezium(
    topic: str, key: Row | None, value: Row | None, *, version: int, text: Callable[[Row], str]
) -> Event | None:
    """The event of a record of Debezium's PostgreSQL connector, as decoded JSON; None where it is about no row.

    text: makes a document of a row. Raises ValueError for a record from which no event can be made.
    """
    key, value = _payload(key), _payload(value)
    if value is not None and "op" not in value:
        raise ValueError(f"{topic}: no envelope with `op`: a topic of no table, or records that a transform flattened")
    operation = "d" if value is None else value["op"]  # no value at all: the tombstone that follows a delete
    if operation == "t":
        raise ValueError(f"{topic}: a truncate names no rows: delete the documents, or let Debezium skip them")
    if operation not in ("c", "u", "r", "d"):
        return None  # a message that an application wrote to the log
    if not key:
        raise ValueError(f"{topic}: the table needs a primary key, or message.key.columns")
    name = name_of(".".join(topic.split(".")[-2:]), key.values())
    if value is None or operation == "d":
        return delete(name, version)
    made = text(value["after"])
    if UNAVAILABLE in made:
        raise ValueError(f"{name}: Debezium leaves out long values: ALTER TABLE ... REPLICA IDENTITY FULL")
    return upsert(name, version, made)


def _payload(given: Row | None) -> Row | None:
    """What the JSON converter wraps, with `schemas.enable`, as {schema, payload}."""
    return given["payload"] if given is not None and given.keys() == {"schema", "payload"} else given
