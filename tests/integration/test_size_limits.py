"""Bodies larger than a server takes: a 413 before they cost memory, and nothing is stored."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import psutil
import pytest

from apps.documents.models import Collection
from tests.conftest import DATA
from tests.support.processes import Server
from tests.support.refusals import CHAT, DOCUMENTS, SEARCH, nothing_stored, refused, send

LIMIT = 100_000


@pytest.fixture(scope="module")
def small(database: None) -> Iterator[Server]:
    """A server with a low limit."""
    with Server(DATA, MAX_DOCUMENT_BYTES=str(LIMIT)) as server:
        yield server


@pytest.fixture
def at_small(small: Server, api_key: str) -> Iterator[httpx.Client]:
    with small.client(api_key) as client:
        yield client


def chunked(size: int) -> Iterator[bytes]:
    yield b'{"collection": "docs", "text": "'
    for _ in range(size // 1_000):
        yield b"x " * 500
    yield b'"}'


def test_too_large_is_a_413_and_nothing_is_stored(at_small: httpx.Client, collection: Collection) -> None:
    over = {"collection": "docs", "text": "x" * (LIMIT + 1)}
    refused(at_small.post(DOCUMENTS, json=over), 413, "too_large", "/text")
    form = {"file": ("a.txt", b"x" * (LIMIT + 1))}
    refused(at_small.post(DOCUMENTS, data={"collection": "docs"}, files=form), 413, "too_large", "/file")
    refused(at_small.post(DOCUMENTS, json=over | {"text": "x" * 3 * LIMIT}), 413, "too_large")
    refused(at_small.post(SEARCH, json={"query": "x" * 3 * LIMIT}), 413, "too_large")
    refused(at_small.post(CHAT, json={"messages": "x" * 3 * LIMIT}), 413)
    refused(send(at_small, chunked(LIMIT + 1_000)), 413, "too_large", "/text")
    refused(send(at_small, chunked(5 * LIMIT)), 413, "too_large")
    assert nothing_stored(at_small)
    assert send(at_small, chunked(LIMIT // 2)).status_code == 202, "a chunked body within the limit is read"


def test_an_endless_body_takes_no_memory(small: Server, at_small: httpx.Client, collection: Collection) -> None:
    process = psutil.Process(small.running.process.pid)
    before = process.memory_info().rss
    refused(send(at_small, chunked(100_000_000)), 413, "too_large")
    assert process.memory_info().rss - before < 30_000_000


def test_a_large_body_is_for_documents_only(client: httpx.Client) -> None:
    refused(client.post(SEARCH, json={"query": "x" * 9_000_000}), 413, "too_large")


def test_a_declared_length_is_refused_before_the_body_comes(small: Server, api_key: str) -> None:
    head = (
        f"POST {DOCUMENTS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api_key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 10000000000\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as raw:
        raw.sendall(head.encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")
