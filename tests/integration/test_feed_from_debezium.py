"""docs/howto/feed_events.py with records as Debezium's PostgreSQL connector writes them, against the real server."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from apps.documents.models import Collection
from tests.conftest import DATA
from tests.support.processes import ROOT, Server, Workers, free_port

from .test_feed import new_feed, settle, states

HOWTO = ROOT / "docs" / "howto"
TOPIC = "shop.inventory.products"

Record = tuple[int, str, str | None, str | None]  # offset, topic, key and value as they are in Kafka


@pytest.fixture(scope="module")
def feed_events() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("feed_events", HOWTO / "feed_events.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["feed_events"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["feed_events"]


@pytest.fixture
def url(client: httpx.Client, collection: Collection) -> str:
    return str(client.base_url.join(new_feed(client)))


def value(op: str, before: Any, after: Any, lsn: int, *, snapshot: str = "false") -> dict[str, Any]:
    """An envelope of Debezium 2 and 3, without its schema."""
    source = {
        "version": "3.0.0.Final",
        "connector": "postgresql",
        "name": "shop",
        "ts_ms": 1_700_000_000_000 + lsn,
        "snapshot": snapshot,
        "db": "shop",
        "sequence": json.dumps([None if snapshot != "false" else str(lsn - 8), str(lsn)]),
        "ts_us": (1_700_000_000_000 + lsn) * 1_000,
        "ts_ns": (1_700_000_000_000 + lsn) * 1_000_000,
        "schema": "inventory",
        "table": "products",
        "txId": 700 + lsn,
        "lsn": lsn,
        "xmin": None,
    }
    rows = {} if op == "t" else {"before": before, "after": after}
    return {**rows, "source": source, "op": op, "ts_ms": 1_700_000_001_000 + lsn, "transaction": None}


def log(*, schemas: bool) -> list[Record]:
    """A topic: two rows that were there, one that comes, changes, goes and comes back, one that gets another key."""

    def row(key: int, name: str) -> dict[str, Any]:
        return {"id": key, "name": name, "price": 5, "note": None}

    def gone(key: int) -> dict[str, Any]:  # with REPLICA IDENTITY DEFAULT the rest of the row is not known
        return {"id": key, "name": None, "price": None, "note": None}

    offsets = count()

    def record(key: int, envelope: dict[str, Any] | None) -> Record:
        parts: list[Any] = [{"id": key}, envelope]
        if schemas:
            parts = [None if each is None else {"schema": {"type": "struct"}, "payload": each} for each in parts]
        return (next(offsets), TOPIC, *(None if each is None else json.dumps(each) for each in parts))

    return [
        record(1, value("r", None, row(1, "lamp"), 100, snapshot="first")),
        record(2, value("r", None, row(2, "chair"), 100, snapshot="last")),
        record(3, value("c", None, row(3, "table"), 108)),
        record(1, value("u", None, row(1, "better lamp"), 116)),
        record(3, value("d", gone(3), None, 124)),
        record(3, None),
        record(3, value("c", None, row(3, "round table"), 132)),
        record(2, value("d", gone(2), None, 140)),  # its key becomes 20
        record(2, None),
        record(20, value("c", None, row(20, "chair"), 140)),
        record(3, value("u", gone(3), row(3, "square table"), 148)),
        record(4, value("c", None, row(4, "stool"), 130)),  # it had waited for another transaction
        record(1, value("d", gone(1), None, 156)),
        record(1, None),
    ]


def events(feed_events: Any, records: list[Record]) -> list[dict[str, Any]]:
    made = []
    for offset, topic, key, content in records:
        row = None if content is None else json.loads(content)
        version = feed_events.version_of(offset)
        made.append(
            feed_events.from_debezium(
                topic, key and json.loads(key), row, version=version, text=lambda row: f"A {row['name']}."
            )
        )
    return made


@pytest.mark.parametrize("schemas", [False, True])
def test_the_collection_ends_as_the_table_in_any_order_and_however_often(
    feed_events: Any, url: str, api_key: str, collection: Collection, workers: Workers, schemas: bool
) -> None:
    feed = feed_events.Feed(url, api_key)
    made = events(feed_events, log(schemas=schemas))
    assert feed.send(made) == []
    dice = random.Random(3)
    for _ in range(3):
        assert feed.send(dice.sample(made, len(made))) == []
    settle(collection)
    name = "inventory.products/"
    first = 2**40
    assert states(collection) == {
        f"{name}1": (first + 13, None, "deleted"),
        f"{name}2": (first + 8, None, "deleted"),
        f"{name}3": (first + 10, first + 10, "live", "", {}, ["A square table."]),
        f"{name}4": (first + 11, first + 11, "live", "", {}, ["A stool."]),
        f"{name}20": (first + 9, first + 9, "live", "", {}, ["A chair."]),
    }
    assert set(feed.names(name)) == {f"{name}3", f"{name}4", f"{name}20"}
    assert list(feed.names("inventory.prod/")) == []
    # The topic is made again: its offsets begin anew, and count for more than those of the one before.
    renewed = feed_events.from_debezium(
        TOPIC,
        {"id": 3},
        value("r", None, {"id": 3, "name": "desk"}, 900, snapshot="last"),
        version=feed_events.version_of(0, 2),
        text=lambda row: row["name"],
    )
    assert feed.send([renewed]) == []
    settle(collection)
    assert states(collection)[f"{name}3"][5] == ["desk"]


def test_an_outdated_log_shows_nothing_that_was_deleted(
    feed_events: Any, url: str, api_key: str, collection: Collection, workers: Workers
) -> None:
    # Kafka's compaction has left the tombstones alone.
    feed = feed_events.Feed(url, api_key)
    made = events(feed_events, log(schemas=False))
    assert feed.send(made[:4]) == []
    assert feed.send([made[13], made[8]]) == []
    settle(collection)
    assert {name: state[2] for name, state in states(collection).items()} == {
        "inventory.products/1": "deleted",
        "inventory.products/2": "deleted",
        "inventory.products/3": "live",
    }


def test_records_without_an_event_are_passed_over_or_refused_with_the_reason(feed_events: Any) -> None:
    def made(key: Any, content: Any) -> Any:
        return feed_events.from_debezium(TOPIC, key, content, version=1, text=lambda row: str(row["name"]))

    assert made({"prefix": "x"}, {"op": "m", "message": {"prefix": "x", "content": "eA=="}}) is None
    for flattened in ({"id": 1, "name": "lamp"}, {"status": "BEGIN", "id": "571:53195829"}):
        with pytest.raises(ValueError, match="flattened"):
            made({"id": 1}, flattened)
    with pytest.raises(ValueError, match="truncate"):
        made(None, value("t", None, None, 5))
    with pytest.raises(ValueError, match="primary key"):
        made(None, value("c", None, {"name": "x"}, 5))
    with pytest.raises(ValueError, match="REPLICA IDENTITY FULL"):
        made({"id": 1}, value("u", None, {"id": 1, "name": "__debezium_unavailable_value"}, 5))
    assert made({"id": 1}, value("u", None, {"id": 1, "name": " "}, 5))["op"] == "delete"
    assert made({"a/b": "x/y", "c": "ü"}, value("d", {}, None, 5))["source_uri"] == "inventory.products/x%2Fy/%C3%BC"


def test_it_waits_for_a_server_that_is_away_and_tells_what_is_refused(
    feed_events: Any, url: str, api_key: str, collection: Collection, workers: Workers
) -> None:
    port = free_port()
    feed = feed_events.Feed(url.replace(url.split("/api")[0], f"http://127.0.0.1:{port}"), api_key)
    made = [feed_events.upsert(f"d{number}", 1, "word " * 30_000) for number in range(60)]
    made[7] = feed_events.upsert("x" * 2_001, 1, "Its name is too long.")
    refused: list[Any] = []
    sender = threading.Thread(target=lambda: refused.extend(feed.send(made)))
    sender.start()
    with Server(DATA, port=port) as server:
        time.sleep(1)
        server.running.kill()
    time.sleep(1)
    with Server(DATA, port=port):
        sender.join(120)
        assert not sender.is_alive()
    assert [(event["source_uri"], problem["status"]) for event, problem in refused] == [("x" * 2_001, 400)]
    assert set(states(collection)) == {f"d{number}" for number in range(60)} - {"d7"}
    with pytest.raises(httpx.HTTPStatusError):
        feed_events.Feed(url, "rs_wrong").send(made[:1])


def test_the_consumer_on_the_page_is_python_and_uses_what_there_is(feed_events: Any) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (HOWTO / "feed-from-debezium.md").read_text(), re.DOTALL)
    compile(code, "feed-from-debezium.md", "exec")
    (names,) = re.findall(r"^from feed_events import (.+)$", code, re.MULTILINE)
    assert [name for name in names.split(", ") if not hasattr(feed_events, name)] == []
