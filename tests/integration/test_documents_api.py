"""The knowledge half of /api/v1 over HTTP: a real server, real workers."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from apps.documents.models import Collection
from tests.support.processes import Workers, wait_for


def live(client: httpx.Client, document_id: str, version: int = 1) -> dict:
    def ready() -> dict | None:
        body = client.get(f"/api/v1/documents/{document_id}").json()
        return body if (body["live_version"] or 0) >= version else None

    return wait_for(ready, seconds=30, what="the document to be live")


def test_a_document_is_accepted_then_live_then_found(
    client: httpx.Client, collection: Collection, workers: Workers
) -> None:
    body = {"collection": "docs", "text": "The capital of Iceland is Reykjavik.", "source_uri": "iceland"}
    response = client.post("/api/v1/documents", json=body)
    assert response.status_code == 202
    accepted = response.json()
    assert accepted["version"] == 1 and accepted["unchanged"] is False and accepted["job"]
    assert live(client, accepted["id"])["state"] == "live"
    job = client.get(f"/api/v1/jobs/{accepted['job']}").json()
    assert (
        job["state"] == "done"
        and job["error"] is None
        and {"parse_ms", "embed_ms", "publish_ms"} <= set(job["timings"])
    )
    found = client.post("/api/v1/search", json={"query": "capital of Iceland", "collections": ["docs"]}).json()
    hit = found["results"][0]
    assert hit["document_id"] == accepted["id"] and hit["version"] == 1 and hit["fresh"]
    span = client.get(
        f"/api/v1/documents/{hit['document_id']}/versions/1/text",
        params={"start": hit["start"], "end": hit["end"]},
    )
    assert span.json()["text"] == hit["text"] and span.json()["sha256"] == hit["sha256"]
    assert found["snapshot"] == {"docs": 1} and found["stale"] == []


def test_write_through_answers_when_it_is_live(client: httpx.Client, collection: Collection) -> None:
    body = {"collection": "docs", "text": "Pangolins have scales.", "mode": "write_through"}
    response = client.post("/api/v1/documents", json=body)
    assert response.status_code == 201
    assert (response.json()["state"], response.json()["live_version"]) == ("live", 1)
    again = client.post("/api/v1/documents", json=body)
    assert again.status_code == 200 and again.json()["unchanged"] and again.json()["job"] is None


def test_write_through_of_content_that_is_pending_waits_for_it(client: httpx.Client, collection: Collection) -> None:
    """A client that tries again after a timeout, or several that send the same at once."""
    body = {"collection": "docs", "source_uri": "same", "text": "Otters hold hands. " * 40, "mode": "write_through"}

    def send(_: int) -> tuple[int, int | None, int]:
        answer = client.post("/api/v1/documents", json=body)
        found = client.post("/api/v1/search", json={"query": "otters", "mode": "lexical"}).json()["results"]
        return answer.status_code, answer.json()["live_version"], len(found)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(send, range(6)))
    assert sorted(status for status, _, _ in answers) == [200] * 5 + [201]
    assert all(live == 1 and found for _, live, found in answers)


def test_a_write_is_told_its_own_version(client: httpx.Client, collection: Collection) -> None:
    def send(number: int) -> tuple[str, dict]:
        body = {"collection": "docs", "source_uri": "busy", "text": f"Content {number}.", "mode": "write_through"}
        response = client.post("/api/v1/documents", json=body)
        assert response.status_code == 201, response.text
        return body["text"], response.json()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert sorted(body["version"] for _, body in answers) == list(range(1, 9))
    for sent, body in answers:
        assert body["live_version"] >= body["version"] == client.get(f"/api/v1/jobs/{body['job']}").json()["version"]
        version = client.get(f"/api/v1/documents/{body['id']}/versions/{body['version']}").json()
        assert version["sha256"] == hashlib.sha256(sent.encode()).hexdigest()


def test_a_name_that_was_given_up_is_free_for_another_document(client: httpx.Client, collection: Collection) -> None:
    def send(text: str, **fields: Any) -> dict:
        response = client.post("/api/v1/documents", json={"collection": "docs", "text": text} | fields)
        assert response.status_code == 202, response.text
        return response.json()

    apples = send("apples", source_uri="x")
    send("pears", source_uri="y", id=apples["id"])
    cherries = send("cherries", source_uri="x")
    plums = send("plums", source_uri="x", version=9)
    assert cherries["id"] == plums["id"] != apples["id"] and cherries["version"] == 1
    names = {each["source_uri"]: each["id"] for each in client.get("/api/v1/documents").json()["results"]}
    assert names == {"y": apples["id"], "x": cherries["id"]}


def test_a_delete_counts_by_its_own_number(client: httpx.Client, collection: Collection) -> None:
    def send(version: int) -> int:
        body = {"collection": "docs", "source_uri": "page", "text": f"text {version}", "version": version}
        return client.post("/api/v1/documents", json=body).status_code

    def delete(query: str = "") -> int:
        return client.delete(path + query).status_code

    assert send(5) == 202
    path = f"/api/v1/documents/{client.get('/api/v1/documents').json()['results'][0]['id']}"
    assert [delete("?version=4"), delete("?version=5")] == [409, 409], "the write with that number came first"
    assert [delete("?version=7"), delete("?version=7"), delete("?version=6")] == [204, 204, 409]
    assert [send(6), send(7)] == [409, 409]
    assert [delete(), delete("?version=20"), send(15), send(20)] == [204, 204, 409, 409]
    assert client.get(path).json()["version"] == 20
    assert send(21) == 202


def test_a_file_by_multipart_comes_back_as_it_was_sent(client: httpx.Client, collection: Collection) -> None:
    page = b"<html><head><title>Pottery</title></head><body><h1>Clay</h1><p>Throwing a bowl.</p></body></html>"
    response = client.post(
        "/api/v1/documents",
        data={"collection": "docs", "mode": "write_through", "metadata": '{"tags": ["craft"]}'},
        files={"file": ("pottery.html", page, "text/html")},
    )
    assert response.status_code == 201, response.text
    document = client.get(f"/api/v1/documents/{response.json()['id']}").json()
    assert document["source_uri"] == "pottery.html" and document["title"] == "Pottery"
    assert document["metadata"] == {"tags": ["craft"]}
    original = client.get(f"/api/v1/documents/{document['id']}/file")
    assert original.content == page and "attachment" in original.headers["content-disposition"]
    [version] = client.get(f"/api/v1/documents/{document['id']}/versions").json()["results"]
    assert version["sha256"] == hashlib.sha256(page).hexdigest() and version["media_type"] == "text/html"
    [chunk] = client.get(f"/api/v1/documents/{document['id']}/chunks").json()["results"]
    assert chunk["text"].endswith("Throwing a bowl.") and chunk["heading_path"] == ["Clay"] and chunk["ordinal"] == 0


def test_versions_only_go_up(client: httpx.Client, collection: Collection) -> None:
    body = {"collection": "docs", "source_uri": "page", "mode": "write_through"}
    assert client.post("/api/v1/documents", json=body | {"text": "five", "version": 5}).status_code == 201
    stale = client.post("/api/v1/documents", json=body | {"text": "four", "version": 4})
    assert stale.status_code == 409
    assert stale.headers["content-type"] == "application/problem+json"
    assert stale.json()["code"] == "stale_version" and stale.json()["current_version"] == 5
    following = client.post("/api/v1/documents", json=body | {"text": "six"})
    assert following.json()["version"] == 6


def test_chunks_of_an_older_version_keep_their_offsets(client: httpx.Client, collection: Collection) -> None:
    body = {
        "collection": "docs",
        "source_uri": "page",
        "mode": "write_through",
        "media_type": "text/markdown",
    }
    first = client.post("/api/v1/documents", json=body | {"text": "# One\n\nalpha\n\n# Two\n\nbeta\n"}).json()
    client.post("/api/v1/documents", json=body | {"text": "# Zero\n\nnew\n\n# One\n\nalpha\n\n# Two\n\nbeta\n"})
    for number, count in ((1, 2), (2, 3)):
        chunks = client.get(f"/api/v1/documents/{first['id']}/chunks", params={"version": number}).json()["results"]
        assert [chunk["ordinal"] for chunk in chunks] == list(range(count))
        for chunk in chunks:
            url = f"/api/v1/documents/{first['id']}/versions/{number}/text"
            span = client.get(url, params={"start": chunk["start"], "end": chunk["end"]}).json()
            assert span["text"] == chunk["text"]


def test_sent_again_by_its_id_a_document_keeps_its_name(client: httpx.Client, collection: Collection) -> None:
    body = {"collection": "docs", "mode": "write_through"}
    made = client.post("/api/v1/documents", json=body | {"text": "first", "source_uri": "handbook"}).json()
    by_id = body | {"id": made["id"]}
    for again in (
        client.post("/api/v1/documents", json=by_id | {"text": "second"}),
        client.post("/api/v1/documents", json=by_id | {"text": "second", "version": 9}),  # the same content
        client.post("/api/v1/documents", data=by_id, files={"file": ("upload.txt", b"third")}),
    ):
        assert again.json()["source_uri"] == "handbook" and again.json()["id"] == made["id"]
    renamed = client.post("/api/v1/documents", json=by_id | {"text": "fourth", "source_uri": "manual"}).json()
    assert (renamed["source_uri"], renamed["live_version"]) == ("manual", 11)


def test_delete_then_search_finds_nothing(client: httpx.Client, collection: Collection) -> None:
    body = {"collection": "docs", "text": "Zebras are striped.", "mode": "write_through"}
    made = client.post("/api/v1/documents", json=body).json()
    assert client.delete(f"/api/v1/documents/{made['id']}").status_code == 204
    assert client.post("/api/v1/search", json={"query": "zebras"}).json()["results"] == []
    assert client.get(f"/api/v1/documents/{made['id']}").json()["state"] == "deleted"


def test_lists_are_paged_by_cursor(client: httpx.Client, collection: Collection) -> None:
    for number in range(5):
        client.post(
            "/api/v1/documents",
            json={"collection": "docs", "text": f"text {number}", "source_uri": f"d{number}"},
        )
    seen: list[str] = []
    url: str | None = "/api/v1/documents?limit=2&collection=docs"
    while url:
        page = client.get(url).json()
        assert set(page) == {"results", "next", "previous"} and len(page["results"]) <= 2
        seen += [row["source_uri"] for row in page["results"]]
        url = page["next"]
    assert sorted(seen) == [f"d{number}" for number in range(5)]


def test_a_collection_can_be_made_changed_and_removed(client: httpx.Client, tenant: object) -> None:
    made = client.post("/api/v1/collections", json={"slug": "manuals", "name": "Manuals"})
    assert made.status_code == 201 and made.json()["chunking"]["strategy"] == "recursive" and made.json()["epoch"] == 0
    assert client.post("/api/v1/collections", json={"slug": "manuals", "name": "Again"}).status_code == 409
    changed = client.patch("/api/v1/collections/manuals", json={"chunking": {"max_tokens": 64}, "name": "Handbooks"})
    assert changed.json()["chunking"]["max_tokens"] == 64 and changed.json()["name"] == "Handbooks"
    client.post(
        "/api/v1/documents",
        json={"collection": "manuals", "text": "Turn the valve.", "mode": "write_through"},
    )
    counted = client.get("/api/v1/collections/manuals").json()
    assert (counted["documents"], counted["chunks"], counted["pending"], counted["epoch"]) == (1, 1, 0, 1)
    assert client.delete("/api/v1/collections/manuals").status_code == 204
    assert client.get("/api/v1/collections/manuals").status_code == 404
    assert client.post("/api/v1/search", json={"query": "valve"}).json()["results"] == []


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"text": "x"}, 400, "invalid", "/collection"),
        ({"collection": "docs"}, 400, "invalid", "/text"),
        ({"collection": "docs", "text": "  \n "}, 400, "invalid", "/text"),
        ({"collection": "docs", "text": "a\x00b"}, 400, "invalid", "/text"),
        ({"collection": "docs", "text": 5}, 400, "invalid", "/text"),
        ({"collection": "docs", "text": "x", "colour": "red"}, 400, "invalid", "/colour"),
        ({"collection": "nowhere", "text": "x"}, 422, "unknown_collection", "/collection"),
        ({"collection": "docs", "text": "x", "version": 0}, 400, "invalid", "/version"),
        ({"collection": "docs", "text": "x", "version": 2**63}, 400, "invalid", "/version"),
        ({"collection": "docs", "text": "x", "version": "seven"}, 400, "invalid", "/version"),
        ({"collection": "docs", "text": "x", "id": "not-a-uuid"}, 400, "invalid", "/id"),
        (
            {"collection": "docs", "text": "x", "metadata": {"tags": ["b\x00"]}},
            400,
            "invalid",
            "/metadata/tags/0",
        ),
        ({"collection": "docs", "text": "x", "version": "7"}, 400, "invalid", "/version"),
        ({"collection": "docs", "text": "x", "metadata": [1]}, 400, "invalid", "/metadata"),
        ({"collection": "docs", "text": "x", "priority": "soon"}, 400, "invalid", "/priority"),
        ({"collection": "docs", "text": "x", "media_type": "nonsense"}, 400, "invalid", "/media_type"),
    ],
)
def test_bad_input_names_the_field(
    client: httpx.Client, collection: Collection, body: dict, status: int, code: str, pointer: str
) -> None:
    response = client.post("/api/v1/documents", json=body)
    problem = response.json()
    assert response.status_code == status == problem["status"]
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["code"] == code and pointer in [error["pointer"] for error in problem["errors"]]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert client.get("/api/v1/documents").json()["results"] == [], "nothing is half-written"


def test_a_client_id_that_another_tenant_owns_is_refused_without_a_word_of_it(
    client: httpx.Client, collection: Collection, other_tenant: object, make_key: object
) -> None:
    document_id = str(uuid4())
    mine = client.post("/api/v1/documents", json={"collection": "docs", "text": "mine", "id": document_id})
    assert mine.status_code == 202 and mine.json()["id"] == document_id
    headers = {"X-API-Key": make_key(other_tenant)}  # type: ignore[operator]
    with httpx.Client(base_url=client.base_url, headers=headers) as other:
        other.post("/api/v1/collections", json={"slug": "docs", "name": "Docs"})
        refused = other.post("/api/v1/documents", json={"collection": "docs", "text": "theirs", "id": document_id})
        assert refused.status_code == 409 and refused.json()["code"] == "id_unavailable"
        assert other.get(f"/api/v1/documents/{document_id}").status_code == 404
        assert other.get("/api/v1/documents").json()["results"] == []


def test_scopes_are_checked(client: httpx.Client, collection: Collection, tenant: object, make_key: object) -> None:
    headers = {"Authorization": f"Bearer {make_key(tenant, 'read')}"}  # type: ignore[operator]
    refused = httpx.post(
        f"{client.base_url}/api/v1/documents", json={"collection": "docs", "text": "x"}, headers=headers
    )
    assert refused.status_code == 403 and refused.json()["code"] == "missing_scope"
    assert httpx.get(f"{client.base_url}/api/v1/documents").status_code == 401
    assert httpx.get(f"{client.base_url}/api/v1/documents", headers={"X-API-Key": "rs_nonsense"}).status_code == 401
    assert httpx.get(f"{client.base_url}/metrics", headers=headers).status_code == 403
    assert "rag_queue_depth" in client.get("/metrics").text


def test_the_metrics_are_those_of_all_processes(client: httpx.Client, collection: Collection, workers: Workers) -> None:
    """A worker publishes, the web server tells."""

    def published() -> dict[str, float]:
        pattern = r'^rag_ingestion_stage_seconds_count{stage="(\w+)"} (\S+)$'
        return {stage: float(count) for stage, count in re.findall(pattern, client.get("/metrics").text, re.MULTILINE)}

    before = published()
    body = {"collection": "docs", "text": "Counted by whoever did it.", "source_uri": "counted"}
    live(client, client.post("/api/v1/documents", json=body).json()["id"])
    after = published()
    assert set(after) == {"wait", "parse", "chunk", "embed", "publish", "total"}
    assert all(after[stage] == before.get(stage, 0) + 1 for stage in after)
