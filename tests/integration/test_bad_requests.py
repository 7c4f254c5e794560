"""Addresses, methods, query strings and headers that nobody should send."""

from __future__ import annotations

from uuid import uuid4

import httpx
import pytest

from apps.documents.models import Collection
from tests.support.processes import Server, wait_for
from tests.support.refusals import CHAT, DOCUMENTS, NOBODY, SEARCH, nothing_stored, refused


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


@pytest.mark.parametrize("accepted", ["text/plain", "text/html", "text/event-stream", "application/xml;q=0.5", "?", ""])
@pytest.mark.parametrize("path", [DOCUMENTS, f"{DOCUMENTS}/{NOBODY}", "/api/v1/queries", "/metrics", "/v1/models"])
def test_what_a_client_would_take_changes_nothing(client: httpx.Client, path: str, accepted: str) -> None:
    usual, other = client.get(path), client.get(path, headers={"Accept": accepted})
    assert other.status_code == usual.status_code < 500
    assert other.headers["content-type"] == usual.headers["content-type"]


def test_the_schema_comes_in_the_form_that_is_asked_for(client: httpx.Client) -> None:
    assert client.get("/api/schema/", headers={"Accept": "application/json"}).json()["openapi"]
    assert client.get("/api/schema/").text.startswith("openapi:")
    assert client.get("/api/docs/", headers={"Accept": "application/json"}).status_code == 200
    refused(client.get("/api/schema/", headers={"Accept": "text/plain"}), 406)


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
        ("bogus=1", "/bogus"),
        ("colection=docs", "/colection"),
        ("metadata=1", "/metadata"),
    ],
)
def test_a_bad_query_string_is_named(client: httpx.Client, query: str, pointer: str | None) -> None:
    refused(client.get(f"{DOCUMENTS}?{query}"), 400, "invalid", pointer)


def test_a_method_that_takes_no_query_refuses_one(client: httpx.Client, collection: Collection) -> None:
    body = {"collection": "docs", "text": "pangolin"}
    refused(client.post(f"{DOCUMENTS}?mode=write_through", json=body), 400, "invalid", "/mode")
    assert nothing_stored(client)
    assert client.get("/v1/models?api-version=2024-06-01").status_code == 200  # OpenAI's own takes anything


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


def test_the_log_names_the_request_that_was_refused(server: str, web: Server) -> None:
    name = f"request-{uuid4().hex}"
    refused(httpx.get(f"{server}/api/v1/documents/zz", headers={"X-Request-ID": name}), 404)
    wait_for(lambda: name in web.running.log.read_text(), seconds=5, what="the line in the log")
