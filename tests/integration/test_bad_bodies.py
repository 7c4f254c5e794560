"""JSON bodies that are malformed or whose fields are wrong: a problem names the field, and nothing is stored."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from apps.documents.models import Collection
from tests.support.refusals import CHAT, DOCUMENTS, NOBODY, SEARCH, nothing_stored, refused, send

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


def test_a_refusal_speaks_of_the_body_and_not_of_the_interpreter(client: httpx.Client) -> None:
    problem = refused(send(client, MALFORMED["a number of 5,000 digits"]), 400, "malformed_json")
    assert problem["detail"] == "The body is not JSON: A whole number of 5001 digits is too long."


def test_a_document_by_address_is_named_as_not_built(client: httpx.Client, collection: Collection) -> None:
    body = {"collection": "docs", "uri": "https://example.org/page"}
    refused(client.post(DOCUMENTS, json=body), 400, "not_supported", "/uri")


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
