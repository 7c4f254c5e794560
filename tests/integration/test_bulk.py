"""`POST /api/v1/documents/bulk`: lines in, lines out, over real sockets."""

from __future__ import annotations

import gzip
import http.client
import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import db, ledger
from apps.documents.models import Chunk, Collection, Document, IngestionJob
from tests.conftest import DATA, make_collection
from tests.support.processes import Server, Workers, wait_for
from tests.support.refusals import refused

from .test_races import assert_whole

BULK = "/api/v1/documents/bulk"
NDJSON = {"Content-Type": "application/x-ndjson"}


def line(uri: str, text: str | None = None, **more: Any) -> bytes:
    body = {"collection": "docs", "source_uri": uri, "text": text or f"The text of {uri}.", **more}
    return json.dumps(body).encode() + b"\n"


def send(client: httpx.Client, lines: Iterable[bytes], **headers: str) -> list[dict[str, Any]]:
    response = client.post(BULK, content=b"".join(lines), headers=NDJSON | headers, timeout=120)
    assert response.status_code == 200 and response.headers["content-type"] == "application/x-ndjson", response.text
    return [json.loads(each) for each in response.text.splitlines()]


def begin(web: Server, api_key: str, path: str = BULK) -> http.client.HTTPConnection:
    """A request whose body is sent piece by piece."""
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=30)
    connection.putrequest("POST", path)
    for name, value in (NDJSON | {"X-API-Key": api_key, "Transfer-Encoding": "chunked"}).items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection


def stored(collection: Collection) -> dict[str, Document]:
    with tenancy.scope(collection.tenant_id):
        return {document.source_uri: document for document in Document.objects.filter(collection=collection)}


def test_every_line_is_accepted_in_order_and_goes_live(
    client: httpx.Client, collection: Collection, workers: Workers
) -> None:
    results = send(client, (line(f"d{number}", version=number + 1) for number in range(450)))
    assert [each["line"] for each in results] == list(range(1, 451))
    assert {each["status"] for each in results} == {202} and len({each["job"] for each in results}) == 450
    assert [each["source_uri"] for each in results] == [f"d{number}" for number in range(450)]
    assert [each["version"] for each in results] == list(range(1, 451))
    wait_for(lambda: all(document.state == "live" for document in stored(collection).values()), what="all to be live")
    assert_whole(collection, documents=450)
    again = send(client, (line(f"d{number}") for number in range(450)))
    assert {(each["status"], each["unchanged"], each["job"]) for each in again} == {(200, True, None)}


def test_write_through_lines_are_live_when_they_are_answered(client: httpx.Client, collection: Collection) -> None:
    results = send(client, (line(f"d{number}", mode="write_through") for number in range(230)))
    assert {(each["status"], each["state"], each["live_version"]) for each in results} == {(201, "live", 1)}
    assert_whole(collection, documents=230)


def test_bad_lines_fail_alone(
    client: httpx.Client, collection: Collection, other_tenant: Tenant, put: Callable[..., Any]
) -> None:
    theirs = put(make_collection(other_tenant), "A secret.").document.id
    put(collection, "The text of old.", source_uri="old", version=9)
    lines = [
        line("good"),
        b"{not json}\n",
        b'\xff{"collection": "docs"}\n',
        b"[1, 2]\n",
        b"\n",
        b"   \r\n",
        line("no-text", text=" "),
        line("old", text="Older.", version=9),
        line("elsewhere", collection="nowhere"),
        line("theirs", id=str(theirs)),
        line("picture", media_type="image/png"),
        line("pdf", media_type="application/pdf"),
        line("unknown", colour="red"),
        line("x" * 3_000),
        line("twice", text="One."),
        line("twice", text="Two."),
        line("twice", text="Two."),
        line("mine", id=(chosen := str(uuid4()))),
        line("other", id=chosen),
        line("mine", id=str(uuid4())),  # free again
        line("good", id=str(uuid4())),
        line("last").rstrip(b"\n"),
    ]
    results = {each["line"]: each for each in send(client, lines, **{"X-Request-ID": "bulk-1"})}
    told = {number: (each["status"], each.get("code")) for number, each in results.items()}
    assert told == {
        1: (202, None),
        2: (400, "malformed_json"),
        3: (400, "malformed_json"),
        4: (400, "invalid"),
        7: (400, "invalid"),
        8: (409, "stale_version"),
        9: (422, "unknown_collection"),
        10: (409, "id_unavailable"),
        11: (415, "unsupported"),
        12: (415, "unsupported"),
        13: (400, "invalid"),
        14: (400, "invalid"),
        15: (202, None),
        16: (202, None),
        17: (200, None),
        18: (202, None),
        19: (202, None),
        20: (202, None),
        21: (409, "source_uri_taken"),
        22: (202, None),
    }
    assert list(results) == sorted(results)
    assert results[8]["current_version"] == 9 and results[7]["errors"][0]["pointer"] == "/text"
    assert {each["request_id"] for each in results.values() if "code" in each} == {"bulk-1"}
    assert (results[15]["version"], results[16]["version"], results[17]["unchanged"]) == (1, 2, True)
    assert results[19]["id"] == chosen and results[19]["version"] == 2
    assert set(stored(collection)) == {"old", "good", "twice", "other", "mine", "last"}


def test_a_text_that_cannot_be_read_fails_alone_when_written_through(
    client: httpx.Client, collection: Collection
) -> None:
    lines = [line(f"d{number}", mode="write_through") for number in range(5)]
    lines[2] = line("broken", text="<html><body><p> </p></body></html>", media_type="text/html", mode="write_through")
    results = send(client, lines)
    assert [each["status"] for each in results] == [201, 201, 422, 201, 201]
    assert results[2]["code"] == "empty" and results[2]["errors"][0]["pointer"] == "/text" and results[2]["job"]
    assert stored(collection)["broken"].state == "failed"


def test_a_line_that_is_too_long_is_skipped_to_its_end(client: httpx.Client, collection: Collection) -> None:
    results = send(client, [line("before"), line("long", text="word " * 3_500_000), line("after")])
    assert [(each["line"], each["status"]) for each in results] == [(1, 202), (2, 413), (3, 202)]
    assert set(stored(collection)) == {"before", "after"}


def test_answers_come_while_lines_are_still_sent(web: Server, api_key: str, collection: Collection) -> None:
    # One client, one connection: it sends a line, reads its result, and only then sends the next.
    connection = begin(web, api_key)
    answered = None
    for number in range(3):
        sent = line(f"d{number}", mode="write_through")
        half = len(sent) // 2  # a line may come in pieces
        for piece in (sent[:half], sent[half:]):
            connection.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        answered = answered or connection.getresponse()
        told = json.loads(answered.readline())
        assert (told["line"], told["status"], told["source_uri"]) == (number + 1, 201, f"d{number}")
    connection.send(b"0\r\n\r\n")
    assert answered is not None and answered.read() == b""
    connection.close()


def test_a_client_that_sends_everything_before_it_reads_is_served_in_little_memory(
    web: Server, api_key: str, collection: Collection
) -> None:
    # More results than all buffers between the two hold: a server that waited for its reader would never end.
    def lines() -> Iterator[bytes]:
        yield line("one")
        for _ in range(39_999):
            yield b'{"collection": "nowhere", "text": "x"}\n'

    before = _memory(web)
    with web.client(api_key) as client, client.stream("POST", BULK, content=lines(), headers=NDJSON) as response:
        grown = _memory(web) - before
        count = size = 0
        for count, told in enumerate(response.iter_lines(), start=1):
            size += len(told)
            assert json.loads(told)["line"] == count
    assert count == 40_000 and size > 10_000_000
    assert grown < 32 * 2**20


def _memory(web: Server) -> int:
    return psutil.Process(web.running.process.pid).memory_info().rss


def test_whoever_breaks_off_has_stored_whole_lines_only(web: Server, api_key: str, collection: Collection) -> None:
    connection = begin(web, api_key)
    piece = b"".join(line(f"d{number}") for number in range(20)) + line("cut")[:-1]  # whole JSON, but not a whole line
    connection.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    wait_for(lambda: len(stored(collection)) == 20, what="the lines that came")
    connection.close()
    with web.client(api_key) as client:
        assert send(client, [line("next")])[0]["status"] == 202
    assert set(stored(collection)) == {f"d{number}" for number in range(20)} | {"next"}


def test_a_web_process_that_dies_in_the_middle_loses_nothing_that_was_answered(
    api_key: str, collection: Collection, workers: Workers
) -> None:
    lines = [line(f"d{number}", version=1) for number in range(3_000)]
    with Server(DATA) as server, server.client(api_key) as client:
        answered = [json.loads(told) for told in _until_it_dies(client, lines, server)]
    assert 200 <= len(answered) < 3_000 and {each["status"] for each in answered} == {202}
    assert {each["source_uri"] for each in answered} <= set(stored(collection))
    with Server(DATA) as server, server.client(api_key) as client:
        assert {each["status"] for each in send(client, lines)} <= {202, 200, 409}

    def settled() -> bool:
        with tenancy.scope(collection.tenant_id):
            return not IngestionJob.objects.filter(state__in=["queued", "running"]).exists()

    wait_for(settled, seconds=120, what="the jobs to end")
    assert_whole(collection, documents=3_000)
    with tenancy.scope(collection.tenant_id):
        assert Chunk.objects.count() == 3_000


def _until_it_dies(client: httpx.Client, lines: list[bytes], server: Server) -> Iterator[str]:
    with (
        suppress(httpx.HTTPError),
        client.stream("POST", BULK, content=b"".join(lines), headers=NDJSON) as response,
    ):
        for number, told in enumerate(response.iter_lines(), start=1):
            yield told
            if number == 200:
                server.running.kill()


def test_too_much_waits_for_room_and_is_then_refused(
    api_key: str, collection: Collection, workers: Workers, put: Callable[..., Any]
) -> None:
    wait_for(lambda: db.rows("pending", at_most=1)[0][0] == 0, what="the jobs that other tests left")
    job = put(collection, "Waits.", source_uri="waits").job
    with tenancy.scope(collection.tenant_id):  # out of the workers' reach
        IngestionJob.objects.filter(id=job.id).update(not_before=timezone.now() + timedelta(hours=1))
    with Server(DATA, JOBS_MAX_PENDING="1") as server, server.client(api_key) as client:
        results = send(client, [line("a", mode="write_through"), line("b"), line("c")])
        assert [(each["status"], each.get("code")) for each in results] == [
            (201, None),
            (503, "overloaded"),
            (503, "overloaded"),
        ]
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(send, client, [line("b")])
            time.sleep(2)
            assert not waiting.done()
            with tenancy.scope(collection.tenant_id):
                ledger.cancel(job_id=job.id)
            assert waiting.result()[0]["status"] == 202


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-ndjson2"])
def test_only_lines_are_taken(client: httpx.Client, content_type: str) -> None:
    response = client.post(BULK, content=line("a"), headers={"Content-Type": content_type})
    refused(response, 415)


@pytest.mark.parametrize("path", ["/api/v1/documents", "/api/v1/search", "/api/v1/collections"])
def test_lines_are_taken_nowhere_else(client: httpx.Client, path: str) -> None:
    refused(client.post(path, content=line("a"), headers=NDJSON), 415)


def test_a_request_without_a_key_is_refused_whatever_it_brings(web: Server) -> None:
    body = b"".join(line(f"d{number}") for number in range(50_000))
    with httpx.Client(base_url=web.url, timeout=60) as stranger:
        refused(stranger.post(BULK, content=body, headers=NDJSON), 401)
        assert stranger.get("/healthz").status_code == 200


def test_an_empty_body_has_no_results(client: httpx.Client) -> None:
    assert send(client, [b"\n", b"\n"]) == [] and send(client, []) == []


def test_a_compressed_body_is_refused(client: httpx.Client) -> None:
    headers = NDJSON | {"Content-Encoding": "gzip"}
    refused(client.post(BULK, content=gzip.compress(line("a")), headers=headers), 415, "unsupported")
