"""A hostile and a clumsy client at a real server: never a 500, always a problem document, nothing half-written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psutil
import pytest
from django.utils import timezone

from apps.access import keys, tenancy
from apps.access.models import ApiKey, Tenant
from apps.documents.models import Collection
from tests.conftest import DATA
from tests.support.processes import ROOT, Server, free_port, wait_for

BAD_FILES = Path(__file__).resolve().parents[3] / "shared" / "data" / "files" / "bad"
NOBODY = "00000000-0000-0000-0000-000000000000"
DOCUMENTS, SEARCH, CHAT = "/api/v1/documents", "/api/v1/search", "/v1/chat/completions"
LIMIT = 100_000


def refused(response: httpx.Response, status: int, code: str | None = None, pointer: str | None = None) -> dict:
    """The problem document of a refusal, checked for what all of them have in common."""
    assert response.status_code == status, response.text
    request_id = response.headers["x-request-id"]
    body = response.json()
    assert "Traceback" not in response.text
    if response.url.path.startswith("/v1/"):
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return body["error"]
    assert response.headers["content-type"] == "application/problem+json"
    assert body["status"] == status and body["request_id"] == request_id and body["detail"] and body["title"]
    assert code is None or body["code"] == code, body
    assert pointer is None or pointer in [error["pointer"] for error in body["errors"]], body
    return body


def nothing_stored(client: httpx.Client) -> bool:
    return client.get(DOCUMENTS).json()["results"] == [] and client.get("/api/v1/jobs").json()["results"] == []


def send(client: httpx.Client, body: Any, path: str = DOCUMENTS, **headers: str) -> httpx.Response:
    return client.post(path, content=body, headers={"Content-Type": "application/json"} | headers)


def together(*acts: Callable[[], httpx.Response]) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(acts)) as threads:
        return [future.result() for future in [threads.submit(act) for act in acts]]


@pytest.fixture(scope="module")
def small(database: None) -> Iterator[Server]:
    """A server with a low limit."""
    with Server(DATA, MAX_DOCUMENT_BYTES=str(LIMIT)) as server:
        yield server


@pytest.fixture
def at_small(small: Server, api_key: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {api_key}"}
    with httpx.Client(base_url=small.url, headers=headers, timeout=60) as client:
        yield client


# --- bodies ----------------------------------------------------------------------------------------------------

MALFORMED = {
    "truncated": b'{"collection": "docs", "te',
    "trailing garbage": b'{"collection": "docs"} x',
    "NaN": b'{"collection": "docs", "text": "x", "metadata": {"a": NaN}}',
    "Infinity": b'{"version": -Infinity}',
    "a name twice": b'{"collection": "docs", "text": "x", "text": "y"}',
    "10,000 arrays deep": b"[" * 10_000 + b"]" * 10_000,
    "200,000 arrays deep": b"[" * 200_000,
    "objects deep": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a number of 5,000 digits": b'{"version": 1' + b"0" * 5_000 + b"}",
    "invalid UTF-8": b'{"collection": "docs", "text": "\xff\xfe"}',
    "UTF-16": '{"collection": "docs", "text": "x"}'.encode("utf-16"),
    "blank": b"  ",
}


@pytest.mark.parametrize("path", [DOCUMENTS, SEARCH, "/api/v1/collections", "/api/v1/answers", CHAT])
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_json_is_a_400(client: httpx.Client, path: str, body: bytes) -> None:
    assert refused(send(client, body, path), 400)["code"] == "malformed_json"


@pytest.mark.parametrize("body", ["[]", "null", "1", '"x"', "true", '[{"collection": "docs", "text": "x"}]'])
@pytest.mark.parametrize("path", [DOCUMENTS, SEARCH, "/api/v1/collections"])
def test_json_that_is_no_object_is_a_400(client: httpx.Client, path: str, body: str) -> None:
    refused(send(client, body, path), 400, "invalid")


def test_a_byte_order_mark_is_skipped_and_no_charset_is_believed(client: httpx.Client, collection: Collection) -> None:
    body = b'\xef\xbb\xbf{"collection": "docs", "text": "gr\xc3\xbcn", "mode": "write_through"}'
    for charset in ("zlib", "idna", "rot13", "latin-1"):
        response = send(client, body, **{"Content-Type": f"application/json; charset={charset}"})
        assert response.status_code in (200, 201), response.text
    made = response.json()["id"]
    assert client.get(f"{DOCUMENTS}/{made}/versions/1/text").json()["text"] == "grün"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "nonsense"])
@pytest.mark.parametrize("path", [DOCUMENTS, SEARCH, CHAT])
def test_a_body_of_another_type_is_a_415(client: httpx.Client, path: str, kind: str) -> None:
    refused(send(client, b"a=b", path, **{"Content-Type": kind}), 415)


BAD_FIELDS: list[tuple[str, Any, str]] = [
    *[("id", value, "/id") for value in (5, True, -1, "", None, [], {}, "x\x00", "\ud800")],
    *[("title", value, "/title") for value in (None, 5, True, [], "\x00", "\ud800", "x" * 501)],
    *[
        ("source_uri", value, "/source_uri")
        for value in (None, "", 5, "\x00", "\ud800", "x" * 2001, "\U0001f642" * 501)
    ],
    *[("metadata", value, "/metadata") for value in (None, 5, "{}", [], {"\x00": 1}, {"a": "x" * 300_000})],
    ("metadata", {"a": ["\ud800"]}, "/metadata/a/0"),
    ("metadata", {"a": {"b/c": "\x00"}}, "/metadata/a/b~1c"),
    ("metadata", {"a": 10**30}, "/metadata/a"),
    *[("version", value, "/version") for value in (None, True, 1.0, 1.5, 0, -1, 2**63, 10**400, "1", [], {})],
    *[("mode", value, "/mode") for value in (None, 1, True, [], "", "write", "\ud800", "x" * 5_000)],
    *[("priority", value, "/priority") for value in (None, 0, [], "soon")],
    *[("media_type", value, "/media_type") for value in (None, 5, "x", "text/plain\n;x", "text/plain; é", "a/" * 200)],
    *[
        ("source_updated_at", value, "/source_updated_at")
        for value in (None, 5, "", "yesterday", "99999-01-01T00:00:00Z")
    ],
    ("source_updated_at", "0001-01-01T00:00:00+14:00", "/source_updated_at"),
    *[("text", value, "/text") for value in (None, 5, True, [], "", " \n", "a\x00b", "\ud800")],
    *[("collection", value, "/collection") for value in (None, 5, "", "\x00", "\ud800", "x" * 65)],
    ("file", "x", "/file"),
    ("colour", 1, "/colour"),
    ("a/b~c", 1, "/a~1b~0c"),
    ("\ud800", 1, "/\\ud800"),
]


@pytest.mark.parametrize(("name", "value", "pointer"), BAD_FIELDS, ids=lambda value: ascii(value)[:24])
def test_a_bad_field_of_a_document_is_named(
    client: httpx.Client, collection: Collection, name: str, value: Any, pointer: str
) -> None:
    body = {"collection": "docs", "text": "x"} | {name: value}
    refused(send(client, json.dumps(body)), 400, "invalid", pointer)
    assert nothing_stored(client)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/slug"),
        ({"name": None}, "/name"),
        ({"name": "\x00"}, "/name"),
        ({"slug": "Upper"}, "/slug"),
        ({"slug": 5}, "/slug"),
        ({"epoch": 5}, "/epoch"),
        ({"chunking": None}, "/chunking"),
        ({"chunking": {"colour": 1}}, "/chunking/colour"),
        ({"chunking": {"strategy": "psychic"}}, "/chunking/strategy"),
        ({"chunking": {"max_tokens": True}}, "/chunking/max_tokens"),
        ({"chunking": {"max_tokens": "200"}}, "/chunking/max_tokens"),
        ({"chunking": {"max_tokens": 10**30}}, "/chunking/max_tokens"),
        ({"chunking": {"max_tokens": 16, "overlap_tokens": 16}}, "/chunking"),
        ({"consistency": {"mode": "x"}}, "/consistency/mode"),
        ({"consistency": {"window_seconds": 1.5}}, "/consistency/window_seconds"),
        ({"consistency": {"x": 1}}, "/consistency/x"),
        ({"language": "'; DROP TABLE x"}, "/language"),
        ({"space": "nowhere"}, "/space"),
    ],
    ids=str,
)
def test_a_bad_field_of_a_collection_is_named(client: httpx.Client, body: dict, pointer: str) -> None:
    whole = {"slug": "new", "name": "New"} | body if body else body
    refused(client.post("/api/v1/collections", json=whole), 400, "invalid", pointer)
    assert client.get("/api/v1/collections").json()["results"] == []


def test_a_changed_document_is_held_to_the_same(client: httpx.Client, collection: Collection) -> None:
    made = client.post(DOCUMENTS, json={"collection": "docs", "text": "x", "title": "kept"}).json()["id"]
    for body, pointer in [({"title": None}, "/title"), ({"metadata": []}, "/metadata"), ({"version": 2}, "/version")]:
        refused(client.patch(f"{DOCUMENTS}/{made}", json=body), 400, "invalid", pointer)
    assert client.get(f"{DOCUMENTS}/{made}").json()["title"] == "kept"
    refused(client.patch(f"{DOCUMENTS}/{NOBODY}", json={}), 404, "not_found")


def test_the_last_version_there_is_has_no_next(client: httpx.Client, collection: Collection) -> None:
    body = {"collection": "docs", "source_uri": "last", "text": "one"}
    made = client.post(DOCUMENTS, json=body | {"version": 2**63 - 1})
    assert made.status_code == 202
    stale = refused(client.post(DOCUMENTS, json=body | {"text": "two"}), 409, "stale_version")
    assert stale["current_version"] == 2**63 - 1
    assert client.get(f"{DOCUMENTS}/{made.json()['id']}/versions/{2**63 - 1}").status_code == 200


# --- forms -----------------------------------------------------------------------------------------------------


def field(name: str, value: str | bytes) -> bytes:
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
    return head + (value.encode() if isinstance(value, str) else value) + b"\r\n"


def part(content: bytes = b"hello", name: str = "file", filename: str = "a.txt", kind: str = "text/plain") -> bytes:
    head = (
        f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: {kind}\r\n\r\n'
    )
    return head.encode() + content + b"\r\n"


DOCS, END = field("collection", "docs"), b"--x--\r\n"
BAD_FORMS: list[tuple[str, bytes, int, str | None]] = [
    ("two files", DOCS + part() + part(b"second", filename="b.txt"), 400, "/file"),
    ("a field twice", DOCS + DOCS + part(), 400, "/collection"),
    ("text and file", DOCS + field("text", "x") + part(), 400, "/file"),
    ("neither", DOCS, 400, "/text"),
    ("a file that is a field", DOCS + field("file", "x"), 400, "/file"),
    ("a field that is a file", DOCS + part(name="text"), 400, "/text"),
    ("an unknown file", DOCS + part() + part(name="other"), 400, "/other"),
    ("an empty file", DOCS + part(b""), 422, "/file"),
    ("a field that is not UTF-8", DOCS + field("text", b"\xff\xfe abc"), 400, "/text"),
    ("a null character", DOCS + field("source_uri", "a\x00") + part(), 400, "/source_uri"),
    ("metadata cut off", DOCS + field("metadata", "{") + part(), 400, "/metadata"),
    ("metadata 20,000 deep", DOCS + field("metadata", "[" * 20_000) + part(), 400, "/metadata"),
    ("metadata that is a list", DOCS + field("metadata", "[]") + part(), 400, "/metadata"),
    ("a version with a point", DOCS + field("version", "1.0") + part(), 400, "/version"),
    ("a version of 5,000 digits", DOCS + field("version", "9" * 5_000) + part(), 400, "/version"),
    ("bad base64", DOCS + part().replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!"), 400, None),
    ("2,000 fields", b"".join(field(f"f{n}", "x") for n in range(2_000)), 400, None),
    ("300 files", b"".join(part(name=f"f{n}") for n in range(300)), 400, None),
    ("a long file name", DOCS + part(filename="a" * 5_000), 400, None),
]


@pytest.mark.parametrize(
    ("body", "status", "pointer"), [row[1:] for row in BAD_FORMS], ids=[row[0] for row in BAD_FORMS]
)
def test_a_bad_form_is_refused(
    client: httpx.Client, collection: Collection, body: bytes, status: int, pointer: str | None
) -> None:
    response = client.post(DOCUMENTS, content=body + END, headers={"Content-Type": "multipart/form-data; boundary=x"})
    refused(response, status, pointer=pointer)
    assert nothing_stored(client)


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=other", "; boundary=é", "; boundary=" + "y" * 400])
def test_a_form_without_its_boundary_is_refused(client: httpx.Client, collection: Collection, boundary: str) -> None:
    kind = ("multipart/form-data" + boundary).encode()
    response = client.post(DOCUMENTS, content=DOCS + part() + END, headers={b"Content-Type": kind})
    refused(response, 415 if len(boundary) > 300 else 400)
    assert nothing_stored(client)


@pytest.mark.parametrize("charset", ["idna", "zlib", "utf-16", "unicode_escape"])
def test_a_form_is_utf_8_whatever_charset_it_claims(client: httpx.Client, collection: Collection, charset: str) -> None:
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    body = (
        DOCS
        + field("title", "grün")
        + part(b"gr\xfcn", filename="größe \U0001f642.txt", kind="text/plain; charset=latin1")
    )
    made = client.post(DOCUMENTS, content=body + END, headers={"Content-Type": kind})
    assert made.status_code == 202, made.text
    found = client.get(f"{DOCUMENTS}/{made.json()['id']}").json()
    assert (found["title"], found["source_uri"]) == ("grün", "größe \U0001f642.txt")


@pytest.mark.parametrize("kind", ["text/" + "p" * 500, "text/p\x00lain", "nonsense", "text/plain; charset=zlib"])
def test_a_part_s_odd_media_type_says_nothing(client: httpx.Client, collection: Collection, kind: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    made = client.post(
        DOCUMENTS, content=DOCS + field("mode", "write_through") + part(kind=kind) + END, headers=headers
    )
    assert made.status_code == 201, made.text
    assert client.get(f"{DOCUMENTS}/{made.json()['id']}/file").content == b"hello"


# --- kinds of content ------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(64)
WITHOUT_TEXT = [
    (PNG, "image.png", "image/png"),
    (PNG, "image.txt", "text/plain"),
    (PNG, "image", "application/octet-stream"),
    (b"\x00\x00\x00\x18ftypmp42" + bytes(64), "film.mp4", "video/mp4"),
    (b"ID3\x03\x00" + bytes(64), "song.mp3", "audio/mpeg"),
    (b"RIFF\x24\x08\x00\x00WAVEfmt " + bytes(64), "sound.wav", "audio/wav"),
    (b"\x7fELF\x02\x01\x01" + bytes(64), "program", "application/octet-stream"),
    (b"MZ\x90\x00" + bytes(200), "program.exe", "application/x-msdownload"),
    (b"\x01\x02\x03\x00" * 30, "image.xyz", "image/x-unknown"),
]


@pytest.mark.parametrize(("content", "filename", "kind"), WITHOUT_TEXT, ids=[row[1] for row in WITHOUT_TEXT])
def test_images_sound_video_and_programs_are_a_415(
    client: httpx.Client, collection: Collection, content: bytes, filename: str, kind: str
) -> None:
    response = client.post(DOCUMENTS, data={"collection": "docs"}, files={"file": (filename, content, kind)})
    refused(response, 415, "unsupported", "/file")
    assert nothing_stored(client)


@pytest.mark.parametrize(
    ("content", "filename", "kind"),
    [
        (b"const a: number = 1", "module.ts", "video/mp2t"),  # what some systems say of TypeScript
        (b"ID3 tags are metadata.", "about.txt", "text/plain"),
        (b"%PDF-1.4 no more", "picture.png", "image/png"),
        (b"\x01\x02\x03\x00" * 30, "thing.bin", "application/octet-stream"),
    ],
)
def test_what_is_less_certain_is_accepted(
    client: httpx.Client, collection: Collection, content: bytes, filename: str, kind: str
) -> None:
    response = client.post(DOCUMENTS, data={"collection": "docs"}, files={"file": (filename, content, kind)})
    assert response.status_code == 202, response.text


@pytest.mark.parametrize("kind", ["application/pdf", "image/png", "application/x-msdownload", "text/x-unheard-of"])
def test_a_text_of_a_format_that_is_not_text_is_a_415(client: httpx.Client, collection: Collection, kind: str) -> None:
    body = {"collection": "docs", "text": "hello", "media_type": kind}
    refused(client.post(DOCUMENTS, json=body), 415, "unsupported", "/media_type")
    assert nothing_stored(client)


@pytest.mark.skipif(not BAD_FILES.is_dir(), reason="no corpus of bad files beside the repository")
@pytest.mark.parametrize("mode", ["write_through", "write_back"])
@pytest.mark.parametrize(
    "name",
    [
        "pdfminer.six__zen_of_python_corrupted.pdf",
        "unstructured__password.pdf",
        "pdf.js__empty_protected.pdf",
        "pdf.js__REDHAT-1531897-0.pdf",
        "unstructured__empty.txt",
        "pocs__pdf_zip_pe.pdf",
    ],
)
def test_a_bad_file_fails_with_a_reason(
    client: httpx.Client, collection: Collection, workers: object, mode: str, name: str
) -> None:
    content = (BAD_FILES / name).read_bytes()
    kind = "application/pdf" if name.endswith("pdf") else "text/plain"
    form = {"collection": "docs", "mode": mode}
    response = client.post(DOCUMENTS, data=form, files={"file": (name, content, kind)})
    if not content:
        refused(response, 422, "empty", "/file")
        assert nothing_stored(client)
        return
    if response.status_code == 415:
        refused(response, 415, "unsupported")
        return
    if mode == "write_through":
        assert response.status_code in (201, 422), response.text
        document_id = response.json()["id"]
    else:
        assert response.status_code == 202, response.text
        document_id = response.json()["id"]
    settled = wait_for(lambda: _settled(client, document_id), seconds=60, what=f"{name} to settle")
    if mode == "write_through" and response.status_code == 422:
        assert refused(response, 422)["code"] == settled["error"]["code"]
    if settled["state"] == "failed":
        assert re.fullmatch(r"[a-z_]+", settled["error"]["code"]) and settled["error"]["code"] != "internal"
        assert "Traceback" not in settled["error"]["detail"]
        assert client.get(f"{DOCUMENTS}/{document_id}/chunks").json()["results"] == []


def _settled(client: httpx.Client, document_id: str) -> dict | None:
    body = client.get(f"{DOCUMENTS}/{document_id}").json()
    return body if body["state"] in ("live", "failed") else None


# --- sizes -----------------------------------------------------------------------------------------------------


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


# --- addresses, methods, query strings, headers ----------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("/nope", "/api/v1/nope", "/v1/nope", "/%00", "/%ff", "/api/v1/documents/", "/api/v1/documents/%00"),
        *("/api/v1/documents/5", f"/api/v1/documents/{NOBODY}", f"/api/v1/jobs/{NOBODY}", "/api/v1/collections/a%00b"),
        *("/api/v1/collections/" + "a" * 5_000, f"/api/v1/documents/{NOBODY}/versions/{10**30}", "/v1/models/%00"),
        *(
            "/api/v1/documents?collection=nowhere",
            f"/api/v1/documents/{NOBODY}/file",
            f"/api/v1/documents/{NOBODY}/chunks",
        ),
    ],
)
def test_what_is_not_there_is_a_404(client: httpx.Client, path: str) -> None:
    refused(client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("PUT", path) for path in (DOCUMENTS, SEARCH, CHAT, "/api/v1/collections", "/healthz", "/readyz")),
        *(("POST", path) for path in (f"{DOCUMENTS}/{NOBODY}", f"/api/v1/jobs/{NOBODY}", "/healthz", "/api/schema/")),
        ("GET", SEARCH),
        ("DELETE", "/api/v1/collections"),
        ("GET", f"/api/v1/jobs/{NOBODY}/retry"),
    ],
)
def test_a_wrong_method_is_a_405(client: httpx.Client, method: str, path: str) -> None:
    response = client.request(method, path)
    assert refused(response, 405)["code"] == "method_not_allowed" and response.headers["allow"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        *((f"limit={value}", "/limit") for value in ("0", "-1", "x", "", "1.5", "%D9%A3", "9" * 30)),
        *((f"cursor={value}", "/cursor") for value in ("garbage", "cD0lMDA=", "cD05OTk5OS0wMS0wMQ==", "cD3DqQ==")),
        *(
            (f"{name}=%00", f"/{name}")
            for name in ("collection", "source_uri", "state", "metadata.a", "limit", "cursor")
        ),
        ("state=asleep", "/state"),
        ("source_uri=%ff", None),
    ],
)
def test_a_bad_query_string_is_named(client: httpx.Client, query: str, pointer: str | None) -> None:
    refused(client.get(f"{DOCUMENTS}?{query}"), 400, "invalid", pointer)


@pytest.mark.parametrize(
    "value", ["nan", "-Infinity", "1e999", "1_000", "9" * 5_000, "9" * 400, "null", "{", "'", "%25"]
)
def test_any_text_is_a_metadata_filter(client: httpx.Client, collection: Collection, value: str) -> None:
    client.post(DOCUMENTS, json={"collection": "docs", "text": "x", "metadata": {"a": value.replace("%25", "%")}})
    found = client.get(f"{DOCUMENTS}?metadata.a={value}")
    assert found.status_code == 200 and len(found.json()["results"]) == 1


def test_bounds_of_a_text_s_span(client: httpx.Client, collection: Collection) -> None:
    body = {"collection": "docs", "text": "pangolin", "mode": "write_through"}
    made = client.post(DOCUMENTS, json=body).json()["id"]
    for query in ("start=-1", "start=3&end=2", "start=x", "end=1.0", f"start={2**63}", "start=%201"):
        refused(client.get(f"{DOCUMENTS}/{made}/versions/1/text?{query}"), 400, "invalid")
    whole = client.get(f"{DOCUMENTS}/{made}/versions/1/text?end={2**63 - 1}").json()
    assert whole["text"] == "pangolin" and whole["end"] == 8
    assert client.get(f"{DOCUMENTS}/{made}/chunks?after={2**63 - 1}").json()["results"] == []


@pytest.mark.parametrize("offered", ["x" * 65, "a b", "<script>", "../..", "é"])
def test_a_harmful_request_id_is_replaced(client: httpx.Client, offered: str) -> None:
    response = client.get("/api/v1/nope", headers=[(b"X-Request-ID", offered.encode("latin-1"))])
    refused(response, 404)
    assert response.headers["x-request-id"] != offered
    assert client.get("/api/v1/nope", headers={"X-Request-ID": "mine-1"}).json()["request_id"] == "mine-1"


def test_odd_credentials(server: str, api_key: str, other_tenant: Tenant, make_key: Callable[..., str]) -> None:
    def ask(*headers: tuple[str, str | bytes]) -> httpx.Response:
        return httpx.get(f"{server}/api/v1/collections", headers=list(headers))  # type: ignore[arg-type]

    for good in (f"bearer {api_key}", f"BEARER   {api_key}"):
        assert ask(("Authorization", good)).status_code == 200
    assert ask(("Authorization", "Basic abc"), ("X-API-Key", api_key)).status_code == 200
    for bad in ("", "Bearer", "Basic abc", api_key, f"Bearer {api_key}x", "Bearer " + "x" * 8_000, b"Bearer \xff\xe9"):
        response = ask(("Authorization", bad))
        refused(response, 401)
        assert response.headers["www-authenticate"].startswith("Bearer")
    two = (("Authorization", f"Bearer {api_key}"), ("Authorization", f"Bearer {make_key(other_tenant)}"))
    refused(ask(*two), 401, "invalid_key")
    refused(httpx.get(f"{server}/v1/models"), 401)


def test_expired_and_revoked_keys_are_refused(server: str, tenant: Tenant) -> None:
    past = timezone.now() - timedelta(seconds=1)
    _, expired = keys.create_key(tenant_id=tenant.id, name="old", scopes=["read"], expires_at=past)
    key, revoked = keys.create_key(tenant_id=tenant.id, name="lost", scopes=["read"])
    ask = f"{server}/api/v1/collections"
    assert httpx.get(ask, headers={"X-API-Key": revoked}).status_code == 200
    with tenancy.scope(tenant.id):
        keys.revoke_key(key=ApiKey.objects.get(id=key.id))
    for secret in (expired, revoked):
        refused(httpx.get(ask, headers={"X-API-Key": secret}), 401, "invalid_key")


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [
        *(("read", "POST", path) for path in (DOCUMENTS, "/api/v1/collections", f"/api/v1/jobs/{NOBODY}/retry")),
        *(("write", "GET", path) for path in (DOCUMENTS, "/v1/models", "/api/v1/jobs")),
        *(("write", "POST", path) for path in (SEARCH, CHAT, "/api/v1/answers")),
        ("read", "DELETE", f"{DOCUMENTS}/{NOBODY}"),
        ("read", "GET", "/metrics"),
    ],
)
def test_a_key_does_what_its_scopes_say(
    server: str, tenant: Tenant, make_key: Callable[..., str], scope: str, method: str, path: str
) -> None:
    headers = {"X-API-Key": make_key(tenant, scope)}
    assert refused(httpx.request(method, server + path, headers=headers), 403)["code"] == "missing_scope"


def test_another_tenant_s_things_are_not_there(
    client: httpx.Client, collection: Collection, other_tenant: Tenant, make_key: Callable[..., str]
) -> None:
    made = client.post(DOCUMENTS, json={"collection": "docs", "text": "mine"}).json()
    headers = {"X-API-Key": make_key(other_tenant)}
    with httpx.Client(base_url=client.base_url, headers=headers) as other:
        for path in (f"{DOCUMENTS}/{made['id']}", f"/api/v1/jobs/{made['job']}", "/api/v1/collections/docs"):
            refused(other.get(path), 404)
        refused(other.patch(f"{DOCUMENTS}/{made['id']}", json={"title": "theirs"}), 404)
        refused(other.delete(f"{DOCUMENTS}/{made['id']}"), 404)
        refused(other.post(f"/api/v1/jobs/{made['job']}/cancel"), 404)
        refused(other.delete("/api/v1/collections/docs"), 404)
    assert client.get(f"{DOCUMENTS}/{made['id']}").json()["state"] in ("pending", "processing", "live")


# --- races -----------------------------------------------------------------------------------------------------


def test_eight_identical_writes_make_one_version(client: httpx.Client, collection: Collection) -> None:
    body = {"collection": "docs", "source_uri": "same", "text": "the same text"}
    answers = together(*[lambda: client.post(DOCUMENTS, json=body)] * 8)
    assert Counter(answer.status_code for answer in answers) == {202: 1, 200: 7}
    assert {answer.json()["version"] for answer in answers} == {1}
    assert len(client.get("/api/v1/jobs").json()["results"]) == 1


def test_two_collections_of_one_slug(client: httpx.Client) -> None:
    answers = together(*[lambda: client.post("/api/v1/collections", json={"slug": "twin", "name": "T"})] * 4)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 3}


def test_a_document_changed_deleted_and_written_at_once(
    client: httpx.Client, collection: Collection, workers: object
) -> None:
    body = {"collection": "docs", "source_uri": "busy", "mode": "write_through"}
    made = client.post(DOCUMENTS, json=body | {"text": "first"}).json()["id"]
    acts: list[Callable[[], httpx.Response]] = []
    for number in range(4):
        acts.append(lambda n=number: client.patch(f"{DOCUMENTS}/{made}", json={"title": f"title {n}"}))
        acts.append(lambda: client.delete(f"{DOCUMENTS}/{made}"))
        acts.append(lambda n=number: client.post(DOCUMENTS, json=body | {"text": f"text {n}"}))
    for answer in together(*acts):
        assert answer.status_code in (200, 201, 202, 204, 404), answer.text
    final = client.post(DOCUMENTS, json=body | {"text": "final"})
    assert final.status_code == 201, final.text
    [hit] = client.post(SEARCH, json={"query": "final", "collections": ["docs"]}).json()["results"]
    assert hit["text"] == "final"


def test_a_collection_deleted_while_its_documents_come(client: httpx.Client, tenant: Tenant, workers: object) -> None:
    client.post("/api/v1/collections", json={"slug": "gone", "name": "Gone"})

    def write(number: int) -> httpx.Response:
        mode = "write_through" if number % 2 else "write_back"
        body = {"collection": "gone", "source_uri": f"u{number % 5}", "text": f"Document {number}. " * 50, "mode": mode}
        return client.post(DOCUMENTS, json=body)

    acts: list[Callable[[], httpx.Response]] = [lambda n=n: write(n) for n in range(12)]
    acts.insert(6, lambda: client.delete("/api/v1/collections/gone"))
    acts.insert(9, lambda: client.delete("/api/v1/collections/gone"))
    answers = together(*acts)
    for answer in answers:
        assert answer.status_code in (200, 201, 202, 204, 404, 422), answer.text
    assert 204 in [answer.status_code for answer in answers]
    refused(write(0), 422, "unknown_collection", "/collection")
    refused(client.get("/api/v1/collections/gone"), 404, "unknown_collection")
    with tenancy.scope(tenant.id):
        assert not Collection.objects.filter(slug="gone").exists()
    assert client.post(SEARCH, json={"query": "document"}).json()["results"] == []


# --- what it stands on is gone ---------------------------------------------------------------------------------


def test_without_redis_writes_and_searches_go_on(tenant: Tenant, collection: Collection, api_key: str) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    headers = {"Authorization": f"Bearer {api_key}"}
    with Server(DATA, REDIS_URL=nowhere) as lonely, httpx.Client(base_url=lonely.url, headers=headers) as client:
        client.get("/api/v1/collections")
        started = monotonic()
        body = {"collection": "docs", "text": "Pangolins have scales."}
        assert client.post(DOCUMENTS, json=body).status_code == 202
        assert client.post(DOCUMENTS, json=body | {"text": "Otters swim.", "mode": "write_through"}).status_code == 201
        found = client.post(SEARCH, json={"query": "otters"})
        assert found.status_code == 200 and found.json()["results"][0]["text"] == "Otters swim."
        assert monotonic() - started < 5, "three requests, about a second each at most"
        checks = client.get("/readyz").json()
        assert checks["status"] == "ready" and checks["checks"]["redis"] != "ok"


OWN_POSTGRES = """
import sys
import django
django.setup()
from django.core.management import call_command
from apps.access import keys
from ragsite import embedded
from ragsite.embedded import paths
from ragsite.embedded.postgres import Postgres
embedded.attach()
call_command("migrate", verbosity=0)
tenant = keys.ensure_tenant(slug="own")
print(keys.create_key(tenant_id=tenant.id, name="own", scopes=["read", "write", "admin"])[1], flush=True)
for line in sys.stdin:
    Postgres(paths.data_dir()).stop() if line == "stop\\n" else embedded.ensure_running()
    print("done", flush=True)
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Callable[[str], None], str, dict[str, str]]]:
    """(a function that takes "stop" or "start", a key, an environment) of a PostgreSQL that nobody shares."""
    environment = {"RAGSITE_DATA_DIR": str(tmp_path / "data")}
    held = subprocess.Popen(
        [sys.executable, "-c", OWN_POSTGRES],
        env=os.environ | environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert held.stdin is not None and held.stdout is not None
    stdin, stdout = held.stdin, held.stdout

    def tell(word: str) -> None:
        stdin.write(f"{word}\n")
        stdin.flush()
        assert stdout.readline() == "done\n"

    try:
        yield tell, stdout.readline().strip(), environment
    finally:
        with contextlib.suppress(OSError):
            stdin.close()
        held.wait(60)


def test_without_postgres_a_503_says_when_to_come_back(
    own: tuple[Callable[[str], None], str, dict[str, str]], tmp_path: Path
) -> None:
    tell, key, environment = own
    headers = {"Authorization": f"Bearer {key}"}
    with (
        Server(tmp_path, **environment) as server,
        httpx.Client(base_url=server.url, headers=headers, timeout=60) as client,
    ):
        assert client.post("/api/v1/collections", json={"slug": "docs", "name": "Docs"}).status_code == 201
        tell("stop")
        for method, path, body in [
            ("GET", DOCUMENTS, None),
            ("POST", SEARCH, {"query": "x"}),
            ("POST", DOCUMENTS, {"collection": "docs", "text": "x"}),
            ("GET", "/v1/models", None),
        ]:
            response = client.request(method, path, json=body)
            assert refused(response, 503)["code"] == "database_unavailable"
            assert int(response.headers["retry-after"]) > 0
        assert client.get("/healthz").status_code == 200
        tell("start")
        wait_for(lambda: client.get("/readyz").status_code == 200, what="the server to recover")
        assert client.post(DOCUMENTS, json={"collection": "docs", "text": "x"}).status_code == 202
