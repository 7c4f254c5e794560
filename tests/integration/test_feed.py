"""`POST /api/v1/sources/{id}/events`: whatever the order and however often events come, the newest one stands."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from typing import Any

import httpx
import pytest

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents.models import Chunk, Collection, Document, IngestionJob
from tests.conftest import make_collection
from tests.support.processes import Server, Workers, wait_for
from tests.support.refusals import DOCUMENTS, NOBODY, SEARCH, refused

from . import test_replay
from .test_bulk import NDJSON, begin
from .test_races import assert_whole, versioned

SOURCES = "/api/v1/sources"

Event = dict[str, Any]


@pytest.fixture
def feed(client: httpx.Client, collection: Collection) -> str:
    return new_feed(client)


def new_feed(client: httpx.Client, collection: str = "docs", kind: str = "feed", **settings: Any) -> str:
    """The path of its events."""
    body = {"kind": kind, "name": f"A {kind}", "collection": collection, "settings": settings}
    made = client.post(SOURCES, json=body)
    assert made.status_code == 201, made.text
    return f"{SOURCES}/{made.json()['id']}/events"


def upsert(uri: str, version: int, text: str = "", **more: Any) -> Event:
    return {"op": "upsert", "source_uri": uri, "version": version, "text": text or f"Text {version} of {uri}.", **more}


def delete(uri: str, version: int) -> Event:
    return {"op": "delete", "source_uri": uri, "version": version}


def lines(events: Iterable[Event | bytes]) -> bytes:
    return b"".join(each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in events)


def send(client: httpx.Client, feed: str, events: Iterable[Event | bytes], **headers: str) -> list[Event]:
    response = client.post(feed, content=lines(events), headers=NDJSON | headers, timeout=120)
    assert response.status_code == 200 and response.headers["content-type"] == "application/x-ndjson", response.text
    return [json.loads(line) for line in response.text.splitlines()]


def told(results: list[Event]) -> list[tuple[int, str | bool | None]]:
    """Of each result its status, and its code or whether it was unchanged."""
    return [(each["status"], each.get("code", each.get("unchanged"))) for each in results]


def settle(collection: Collection) -> None:
    def settled() -> bool:
        with tenancy.scope(collection.tenant_id):
            return not IngestionJob.objects.filter(state__in=["queued", "running"]).exists()

    wait_for(settled, seconds=120, what="the jobs to end")


def states(collection: Collection) -> dict[str, tuple[Any, ...]]:
    """By source URI: what a reader may see of a document, and its version."""
    with tenancy.scope(collection.tenant_id):
        live: dict[Any, list[str]] = {}
        for document_id, text in Chunk.objects.filter(retired_in_version=None).values_list("document_id", "text"):
            live.setdefault(document_id, []).append(text)
        return {
            each.source_uri: (
                each.version,
                each.live_version,
                each.state,
                *((each.title, each.metadata, sorted(live.get(each.id, []))) if each.deleted_at is None else ()),
            )
            for each in Document.objects.filter(collection=collection)
        }


def test_results_come_in_order_with_what_became_of_each_event(
    client: httpx.Client, feed: str, collection: Collection, workers: Workers
) -> None:
    events = [
        upsert("lamp", 10, title="Lamp", metadata={"price": 5}),
        upsert("lamp", 10),  # again
        upsert("lamp", 12, "A better lamp."),
        upsert("lamp", 13, "A better lamp."),
        upsert("lamp", 11),  # late
        delete("lamp", 12),  # late
        delete("lamp", 14),
        delete("lamp", 14),  # again
        upsert("lamp", 13),  # late
        upsert("lamp", 15, "The lamp is back."),
        delete("table", 7),  # of something that nobody has heard of
        upsert("table", 6),  # late
        delete("table", 3),  # late
        delete("table", 9),
        upsert("chair", 1),
    ]
    results = send(client, feed, events)
    assert [each["line"] for each in results] == list(range(1, 16))
    stale = (409, "stale_version")
    assert told(results) == [
        (202, False),
        stale,
        (202, False),
        (200, True),
        stale,
        stale,
        (200, False),
        (200, True),
        stale,
        (202, False),
        (200, False),
        stale,
        stale,
        (200, True),
        (202, False),
    ]
    assert (results[1]["current_version"], results[4]["current_version"], results[8]["current_version"]) == (10, 13, 14)
    assert results[6] == {
        "id": results[0]["id"],
        "collection": "docs",
        "source_uri": "lamp",
        "version": 14,
        "live_version": None,
        "state": "deleted",
        "unchanged": False,
        "job": None,
        "status": 200,
        "line": 7,
    }
    assert results[9]["id"] == results[0]["id"] and results[9]["version"] == 15
    settle(collection)
    assert states(collection) == {
        "lamp": (15, 15, "live", "", {}, ["The lamp is back."]),
        "table": (9, None, "deleted"),
        "chair": (1, 1, "live", "", {}, ["Text 1 of chair."]),
    }
    found = client.post(SEARCH, json={"query": "lamp", "mode": "lexical"}).json()["results"]
    assert [(hit["source_uri"], hit["version"]) for hit in found] == [("lamp", 15)]


HISTORIES: list[list[Event]] = [
    [
        upsert("", 1, "One.", title="First", metadata={"a": 1}),
        upsert("", 2, "Two.", title="Second"),
        delete("", 3),
        upsert("", 4, "One."),
    ],
    [upsert("", 1, "One."), delete("", 2), upsert("", 3, "Three.", metadata={"b": 2}), delete("", 4)],
    [delete("", 1), upsert("", 2, "Same.", title="Two"), upsert("", 3, "Same."), upsert("", 4, "Same.", title="Four")],
    [upsert("", 5, "# Head\n\nA.", media_type="text/markdown"), delete("", 6), delete("", 7), upsert("", 8, "Eight.")],
    [
        upsert("", 2, "# Old\n\nText.", media_type="text/markdown"),
        upsert("", 4, "# New\n\nText.", media_type="text/markdown"),
        upsert("", 6, "# New\n\nText.", media_type="text/markdown", metadata={"c": 3}),
    ],
    [
        upsert("", 1, "# Own\n\nText.", media_type="text/markdown", title="Given"),
        upsert("", 2, "# Own\n\nText.", media_type="text/markdown"),
        upsert("", 3, "# Other\n\nText.", media_type="text/markdown"),
    ],
]


@pytest.mark.parametrize("mode", ["write_back", "write_through"])
def test_every_order_of_a_history_ends_as_the_right_one(
    client: httpx.Client, tenant: Tenant, workers: Workers, mode: str
) -> None:
    collection = make_collection(tenant, consistency={"mode": mode})
    feed = new_feed(client)
    named: list[tuple[str, list[Event]]] = []
    for number, history in enumerate(HISTORIES):
        for order, events in enumerate(permutations(history)):  # the first is the right order
            named.append((f"{number}/{order}", [event | {"source_uri": f"{number}/{order}"} for event in events]))
    # One at a time: some are published before the next one comes, others not.
    for turn in range(4):
        results = send(client, feed, [events[turn] for _, events in named if turn < len(events)])
        assert {each["status"] for each in results} <= {200, 201, 202, 409}
        if mode == "write_through":
            assert 202 not in {each["status"] for each in results}
    again = send(client, feed, [event for _, events in named for event in events])
    assert {each["status"] for each in again} <= {200, 409}
    assert not [each for each in again if each["status"] == 200 and not each["unchanged"]]
    settle(collection)
    found = states(collection)
    assert len(found) == len(named)
    for name, _ in named:
        assert found[name] == found[name.split("/")[0] + "/0"], name
    assert [found[f"{number}/0"] for number in range(6)] == [
        (4, 4, "live", "", {}, ["One."]),
        (4, None, "deleted"),
        (4, 4, "live", "Four", {}, ["Same."]),
        (8, 8, "live", "", {}, ["Eight."]),
        (6, 6, "live", "New", {"c": 3}, found["4/0"][5]),
        (3, 3, "live", "Other", {}, found["5/0"][5]),
    ]
    with tenancy.scope(collection.tenant_id):
        counted = Collection.objects.get(id=collection.id)
    live = [state for state in found.values() if state[2] == "live"]
    assert (counted.documents, counted.chunks) == (len(live), sum(len(state[5]) for state in live))


def test_what_was_erased_stays_erased_until_a_higher_version(
    client: httpx.Client, feed: str, collection: Collection, workers: Workers
) -> None:
    made = send(client, feed, [upsert("vault", 5, "The vault stands behind the painting.")])[0]
    settle(collection)
    assert client.delete(f"{DOCUMENTS}/{made['id']}?erase=true").status_code == 204
    results = send(
        client,
        feed,
        [upsert("vault", 4), upsert("vault", 5), delete("vault", 4), delete("vault", 5), delete("vault", 8)],
    )
    assert [each["status"] for each in results] == [409, 409, 409, 200, 200]
    assert [each["id"] for each in results[3:]] == [made["id"]] * 2
    (name,) = states(collection)
    assert name.startswith("erased:")
    revived = send(client, feed, [upsert("vault", 7), upsert("vault", 9, "An empty hall.")])
    assert told(revived) == [(409, "stale_version"), (202, False)]
    settle(collection)
    assert states(collection) == {"vault": (9, 9, "live", "", {}, ["An empty hall."])}


def test_bad_lines_fail_alone_and_say_where(client: httpx.Client, feed: str, collection: Collection) -> None:
    good = upsert("a", 1)
    bad: list[tuple[Event | bytes, int, str | None]] = [
        (b"{not json}\n", 400, None),
        (b'\xff{"op": "delete"}\n', 400, None),
        (b"[1]\n", 400, None),
        ({"source_uri": "b", "version": 1, "text": "x"}, 400, "/op"),
        (upsert("b", 1) | {"op": "replace"}, 400, "/op"),
        ({"op": "delete", "version": 1}, 400, "/source_uri"),
        (delete("", 1), 400, "/source_uri"),
        (delete("x" * 2_001, 1), 400, "/source_uri"),
        (delete("é" * 1_001, 1), 400, "/source_uri"),
        ({"op": "delete", "source_uri": "b"}, 400, "/version"),
        (delete("b", 0), 400, "/version"),
        (delete("b", 2**63), 400, "/version"),
        (delete("b", 1) | {"version": "1"}, 400, "/version"),
        (delete("b", 1) | {"version": True}, 400, "/version"),
        (delete("b", 1) | {"version": 1.5}, 400, "/version"),
        ({"op": "upsert", "source_uri": "b", "version": 1}, 400, "/text"),
        (upsert("b", 1, " \n"), 400, "/text"),
        (upsert("b", 1) | {"text": None}, 400, "/text"),
        (upsert("b", 1, title="t" * 501), 400, "/title"),
        (upsert("b", 1, metadata=[1]), 400, "/metadata"),
        (upsert("b", 1, media_type="application/pdf"), 415, "/media_type"),
        (upsert("b", 1, source_updated_at="yesterday"), 400, "/source_updated_at"),
        (upsert("b", 1, colour="red"), 400, "/colour"),
        (upsert("b", 1, collection="elsewhere"), 400, "/collection"),
        (delete("b", 1) | {"text": "x"}, 400, "/text"),
        (delete("b", 1) | {"metadata": {}}, 400, "/metadata"),
        (upsert("b", 1, "word " * 3_500_000), 413, None),
    ]
    events = [good, *[each for each, _, _ in bad], b"\n", upsert("c", 2**63 - 1)]
    results = send(client, feed, events, **{"X-Request-ID": "feed-1"})
    assert [each["line"] for each in results] == [*range(1, len(bad) + 2), len(bad) + 3]
    assert results[0]["status"] == results[-1]["status"] == 202
    for (event, status, pointer), result in zip(bad, results[1:-1], strict=True):
        assert result["status"] == status and result["request_id"] == "feed-1", (event, result)
        assert pointer in [None, *[each["pointer"] for each in result.get("errors", [])]], (event, result)
    assert set(states(collection)) == {"a", "c"}


def test_names_are_taken_as_they_are(client: httpx.Client, feed: str, collection: Collection, workers: Workers) -> None:
    names = [
        "Ümläute/日本語/🦔",
        "e\u0301 and \u00e9",  # not the same as the next
        "\u00e9 and e\u0301",
        "a b\tc\nd",
        "../../etc/passwd",
        "'; DROP TABLE documents_document; --",
        "%s {x} \\ \" ' ?#&=+",
        "erased:" + "0" * 64,
        "x" * 2_000,
    ]
    results = send(client, feed, [upsert(name, 1, f"Text {at}.") for at, name in enumerate(names)])
    assert told(results) == [(202, False)] * len(names)
    assert [each["source_uri"] for each in results] == names
    settle(collection)
    assert {name: state[5] for name, state in states(collection).items()} == {
        name: [f"Text {at}."] for at, name in enumerate(names)
    }
    assert told(send(client, feed, [delete(name, 2) for name in names])) == [(200, False)] * len(names)
    assert {state[2] for state in states(collection).values()} == {"deleted"}


def test_a_feed_of_another_tenant_is_not_there(
    web: Server, client: httpx.Client, feed: str, collection: Collection, other_tenant: Tenant, make_key: Any
) -> None:
    make_collection(other_tenant)
    with web.client(make_key(other_tenant)) as stranger:
        for path in (feed, f"{SOURCES}/{NOBODY}/events"):
            refused(stranger.post(path, content=lines([upsert("a", 1)]), headers=NDJSON), 404, "not_found")
    with web.client(make_key(other_tenant, "read")) as reader:
        refused(reader.post(feed, content=lines([upsert("a", 1)]), headers=NDJSON), 403)
    assert states(collection) == {}


def test_tenants_with_the_same_names_do_not_meet(
    web: Server, client: httpx.Client, feed: str, collection: Collection, other_tenant: Tenant, make_key: Any
) -> None:
    theirs = make_collection(other_tenant)
    with web.client(make_key(other_tenant)) as stranger:
        their_feed = new_feed(stranger)
        assert told(send(stranger, their_feed, [upsert("a", 9), delete("b", 9)])) == [(202, False), (200, False)]
        assert told(send(client, feed, [upsert("a", 1), delete("b", 1)])) == [(202, False), (200, False)]
        assert {name: state[0] for name, state in states(theirs).items()} == {"a": 9, "b": 9}
    assert {name: state[0] for name, state in states(collection).items()} == {"a": 1, "b": 1}


def test_only_a_feed_that_is_on_takes_events_and_only_as_lines(client: httpx.Client, feed: str) -> None:
    other = new_feed(client, kind="web", url="https://example.com/")
    refused(client.post(other, content=lines([upsert("a", 1)]), headers=NDJSON), 409, "wrong_kind")
    refused(client.post(feed, json=upsert("a", 1)), 415)
    source = feed.removesuffix("/events")
    assert client.patch(source, json={"enabled": False}).status_code == 200
    refused(client.post(feed, content=lines([upsert("a", 1)]), headers=NDJSON), 409, "disabled")
    assert client.patch(source, json={"enabled": True}).status_code == 200
    assert told(send(client, feed, [upsert("a", 1)])) == [(202, False)]
    refused(client.post(source + "/sync", json={}), 409, "wrong_kind")
    assert send(client, feed, [b"\n"]) == [] and send(client, feed, []) == []


def test_a_feed_that_goes_leaves_its_documents(client: httpx.Client, feed: str, collection: Collection) -> None:
    send(client, feed, [upsert("a", 1)])
    source = feed.removesuffix("/events")
    refused(client.delete(source + "?documents=delete"), 409, "wrong_kind")
    assert client.delete(source).status_code == 204
    refused(client.post(feed, content=lines([upsert("a", 2)]), headers=NDJSON), 404)
    assert set(states(collection)) == {"a"}


def test_two_clients_that_send_the_same_history_in_random_order_end_with_its_last_event(
    client: httpx.Client, feed: str, collection: Collection, workers: Workers
) -> None:
    dice = random.Random(11)
    histories: dict[str, list[Event]] = {}
    for number in range(8):
        name = f"d{number}"
        history = [
            delete(name, version) if dice.random() < 0.25 else upsert(name, version, versioned(version))
            for version in range(1, 21)
        ]
        histories[name] = [*history, delete(name, 21) if number % 2 else upsert(name, 21, versioned(21))]
    # Drifting upwards: most versions are live for a moment.
    given = [event for history in histories.values() for event in history]
    orders = [sorted(given, key=lambda event: event["version"] + dice.uniform(0, 6)) for _ in range(2)]
    problems: list[Any] = []
    stop = threading.Event()

    def write(order: list[Event]) -> set[int]:
        with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60) as own:
            sent = [send(own, feed, order[at : at + 7]) for at in range(0, len(order), 7)]
        return {each["status"] for results in sent for each in results}

    def read() -> None:
        newest: dict[str, int] = {}
        with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60) as own:
            while not stop.is_set():
                body = {"query": "section of release", "k": 200, "mode": "lexical"}
                versions: dict[str, set[int]] = {}
                for hit in own.post(SEARCH, json=body).json()["results"]:
                    versions.setdefault(hit["source_uri"], set()).add(hit["version"])
                problems.extend((name, seen) for name, seen in versions.items() if len(seen) > 1)
                problems.extend((name, seen) for name, seen in versions.items() if max(seen) < newest.get(name, 0))
                newest |= {name: max(seen) for name, seen in versions.items()}

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            statuses = set().union(*pool.map(write, orders))
        settle(collection)
    finally:
        stop.set()
        reader.join()
    assert {202, 409} <= statuses <= {200, 202, 409}
    assert problems == []
    found = states(collection)
    assert {name: state[:3] for name, state in found.items()} == {
        f"d{number}": (21, None, "deleted") if number % 2 else (21, 21, "live") for number in range(8)
    }
    with tenancy.scope(collection.tenant_id):
        for state in [state for state in found.values() if state[2] == "live"]:
            assert all("release 21:" in text or "release21" in text for text in state[5])


def test_a_collection_that_goes_meanwhile_ends_the_events_not_the_stream(
    web: Server, client: httpx.Client, api_key: str, feed: str
) -> None:
    connection = begin(web, api_key, path=feed)

    def tell(event: Event, answered: Any = None) -> tuple[Any, Event]:
        piece = lines([event])
        connection.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        answered = answered or connection.getresponse()
        return answered, json.loads(answered.readline())

    answered, first = tell(upsert("a", 1))
    assert first["status"] == 202
    assert client.delete("/api/v1/collections/docs").status_code == 204
    for event in (upsert("a", 2), upsert("b", 1), delete("a", 3), delete("c", 1)):
        _, result = tell(event, answered)
        assert (result["status"], result["code"]) == (422, "unknown_collection"), event
    connection.send(b"0\r\n\r\n")
    assert answered.read() == b""
    connection.close()
    refused(client.post(feed, content=lines([upsert("a", 4)]), headers=NDJSON), 404)


@pytest.mark.skipif(not test_replay.VERSIONS.is_dir(), reason="no pages with versions beside the repository")
def test_real_pages_replayed_out_of_order_and_twice_end_with_their_newest_version(
    client: httpx.Client, feed: str, collection: Collection, workers: Workers
) -> None:
    given = list(_page_events())
    dice = random.Random(8)
    order = dice.sample(given * 2, len(given) * 2)
    statuses: set[int] = set()
    for at in range(0, len(order), 60):
        statuses |= {each["status"] for each in send(client, feed, order[at : at + 60])}
    assert {202, 409} <= statuses <= {200, 202, 409}
    settle(collection)
    last: dict[str, Event] = {}
    for event in given:
        last[event["source_uri"]] = event
    with tenancy.scope(collection.tenant_id):
        for document in Document.objects.filter(collection=collection, deleted_at=None):
            event = last.pop(document.source_uri)
            assert document.version == document.live_version == event["version"]
            assert bytes(document.content_sha256) == hashlib.sha256(event["text"].encode()).digest()
        assert {event["op"] for event in last.values()} == {"delete"}
        Document.objects.filter(collection=collection).exclude(deleted_at=None).delete()
    assert_whole(collection, documents=len({event["source_uri"] for event in given}) - len(last))


def _page_events() -> Iterator[Event]:
    """Of every page its versions; every third is taken down at last, and every fifth had been once before."""
    pages: dict[str, list[Event]] = {}
    for page, version, text in test_replay.events():
        pages.setdefault(page, []).append(upsert(page, 2 * version, text, title=page))
    for number, (page, history) in enumerate(pages.items()):
        if number % 5 == 0:
            yield delete(page, history[0]["version"] + 1)
        yield from history
        if number % 3 == 0:
            yield delete(page, history[-1]["version"] + 1)


def test_every_line_is_answered_as_the_openapi_document_says(client: httpx.Client, feed: str) -> None:
    events = [upsert("a", 2), upsert("a", 1), delete("b", 3), {"op": "upsert"}, b"not JSON\n"]
    answers = send(client, feed, events)
    assert [answer["status"] for answer in answers] == [202, 409, 200, 400, 400]
    document = client.get("/api/schema/?format=json").json()
    schemas = document["components"]["schemas"]
    content = document["paths"][f"{SOURCES}/{{source_id}}/events"]["post"]["responses"]["200"]["content"]
    told, refusal = (each["$ref"].rpartition("/")[2] for each in content["application/x-ndjson"]["schema"]["oneOf"])
    problem, more = schemas[refusal]["allOf"]
    accepted, problem = schemas[told], schemas[problem["$ref"].rpartition("/")[2]]
    for answer in answers:
        if answer["status"] < 400:
            assert answer.keys() == accepted["properties"].keys() == set(accepted["required"])
        else:
            required = {*problem["required"], *more["required"]}
            assert required <= answer.keys() <= problem["properties"].keys() | more["properties"].keys()
