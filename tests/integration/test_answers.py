"""POST /api/v1/answers: a cited answer over HTTP, its stream, its record and its proof."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import remove
from apps.documents.models import Collection, DocumentVersion
from apps.generation.models import Answer
from tests.support.asking import GUIDE, ask, events

HOLIDAYS = "The office is closed on public holidays. Parking is free on Sundays.\n"


@pytest.fixture
def guide(collection: Collection, ingest: Callable[..., Any]) -> Collection:
    ingest(collection, GUIDE, source_uri="guide.md", title="Guide", media_type="text/markdown")
    ingest(collection, HOLIDAYS, source_uri="holidays.txt", title="Holidays")
    return collection


def test_an_answer_quotes_the_passage_that_holds_it(client: httpx.Client, guide: Collection) -> None:
    body = ask(client)
    assert "Backups run every night at 02:30 UTC." in body["answer"]
    assert body["model"] == body["degraded"] == "extractive"
    assert not body["abstained"] and not body["cached"]
    assert body["grounded"] == 1.0
    assert all(sentence["supported"] and sentence["text"] in body["answer"] for sentence in body["sentences"])
    assert set(body) == {
        *("id", "answer", "citations", "sentences", "grounded", "abstained", "model", "cached", "degraded"),
        *("usage", "timings", "finish_reason", "partial", "prompt_version", "standalone_question"),
    }
    markers = [int(n) for n in re.findall(r"\[(\d+)\]", body["answer"])]
    assert list(dict.fromkeys(markers)) == [citation["marker"] for citation in body["citations"]] != []


def test_every_citation_points_into_the_stored_text(client: httpx.Client, guide: Collection) -> None:
    for question in (
        "When do backups run every night?",
        "restore command operator role",
        "復元には約十分かかります",
    ):
        for citation in ask(client, question)["citations"]:
            where = f"/api/v1/documents/{citation['document_id']}/versions/{citation['version']}/text"
            stored = client.get(where, params={"start": citation["start"], "end": citation["end"]}).json()
            assert stored["text"] == citation["quote"] != ""
            assert stored["sha256"] == citation["sha256"] == hashlib.sha256(citation["quote"].encode()).hexdigest()
            assert citation["source_uri"] == "guide.md" and citation["title"] == "Guide"


def test_marker_like_text_of_a_document_is_no_citation(client: httpx.Client, guide: Collection) -> None:
    body = ask(client, "Which role does the restore command need: the operator role?")
    assert "operator role [ 3 ]" in body["answer"] or "operator role [3]" not in body["answer"]
    assert "operator role [3]." in body["citations"][0]["quote"]


def test_a_question_that_the_sources_do_not_answer_is_refused_politely(client: httpx.Client, guide: Collection) -> None:
    body = ask(client, "zebra quantum chromodynamics?")
    assert body["abstained"] and body["citations"] == [] and "do not answer" in body["answer"]


def test_a_document_that_repeats_the_question_in_code_is_not_quoted(
    client: httpx.Client, guide: Collection, ingest: Callable[..., Any]
) -> None:
    question = "When do backups run every night?"
    tour = f'# A tour\n\n```sh\ncurl $URL/api/v1/answers -d \'{{"question": "{question}"}}\'\n```\n'
    ingest(guide, tour, source_uri="tour.md", title="A tour", media_type="text/markdown")
    body = ask(client, question)
    assert "02:30" in body["answer"] and "curl" not in body["answer"]
    assert body["grounded"] == 1.0 and all(sentence["citations"] for sentence in body["sentences"])


def test_an_answer_keeps_to_max_tokens(client: httpx.Client, guide: Collection) -> None:
    whole = ask(client)
    assert whole["finish_reason"] == "stop"
    for max_tokens in (1, 5, 9, 18):
        body = ask(client, max_tokens=max_tokens)
        assert body["usage"]["completion_tokens"] <= max_tokens and body["finish_reason"] == "length"
        assert whole["answer"].startswith(body["answer"].removesuffix(" [1]"))
        assert re.findall(r"\[", body["answer"]) == ["["] * len(body["citations"])


def test_an_empty_collection_answers_nothing(client: httpx.Client, collection: Collection) -> None:
    assert ask(client)["abstained"]


def test_the_stream_tells_the_same_story(client: httpx.Client, guide: Collection) -> None:
    fields = {"question": "When do backups run every night?", "stream": True}
    headers = {"Accept": "text/event-stream"}
    with client.stream("POST", "/api/v1/answers", json=fields, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-request-id"]
        found = events(response.iter_lines())
    names = [name for name, _ in found]
    assert names[0] == "search_results" and names[-1] == "final_answer"
    assert names == sorted(names, key=["search_results", "message", "citation", "final_answer"].index)
    final = found[-1][1]
    assert "".join(data["delta"] for name, data in found if name == "message") == final["answer"]
    assert [data for name, data in found if name == "citation"] == final["citations"] != []
    assert {hit["document_id"] for hit in found[0][1]["results"]} >= {c["document_id"] for c in final["citations"]}
    assert client.get(f"/api/v1/answers/{final['id']}").json() == final


def test_an_answer_is_stored_with_what_it_was_made_from(
    client: httpx.Client, tenant: Tenant, guide: Collection
) -> None:
    body = ask(client, collections=["docs"], k=3)
    assert client.get(f"/api/v1/answers/{body['id']}").json() == body
    with tenancy.scope(tenant.id):
        row = Answer.objects.get(id=body["id"])
        assert row.request["collections"] == ["docs"] and row.request["k"] == 3
        for passage in row.context["passages"]:
            version = DocumentVersion.objects.get(document_id=passage["document_id"], version=passage["version"])
            text = (version.text or "")[passage["start"] : passage["end"]]
            assert hashlib.sha256(text.encode()).hexdigest() == passage["sha256"]
        assert row.question in row.context["messages"][-1]["content"]


def test_an_answer_proves_itself_until_its_source_is_deleted(
    client: httpx.Client, tenant: Tenant, guide: Collection
) -> None:
    body = ask(client)
    proof = client.get(f"/api/v1/answers/{body['id']}/verify").json()
    assert proof == {
        "verified": True,
        "citations": [{"marker": c["marker"], "verified": True} for c in body["citations"]],
    }
    remove.delete(tenant_id=tenant.id, document_id=UUID(body["citations"][0]["document_id"]))
    proof = client.get(f"/api/v1/answers/{body['id']}/verify").json()
    assert not proof["verified"]
    assert proof["citations"][0] == {"marker": 1, "verified": False, "reason": "document_deleted"}


def test_an_answer_still_proves_itself_after_an_update(
    client: httpx.Client, guide: Collection, ingest: Callable[..., Any]
) -> None:
    body = ask(client)
    ingest(guide, GUIDE.replace("02:30", "04:00"), source_uri="guide.md", media_type="text/markdown")
    assert client.get(f"/api/v1/answers/{body['id']}/verify").json()["verified"]
    assert "04:00" in ask(client)["answer"]


def test_a_changed_text_is_found_out(client: httpx.Client, tenant: Tenant, guide: Collection) -> None:
    body = ask(client)
    with tenancy.scope(tenant.id):
        row = Answer.objects.get(id=body["id"])
        row.result["citations"][0]["start"] += 1
        row.save()
    proof = client.get(f"/api/v1/answers/{body['id']}/verify").json()
    assert proof["citations"][0]["reason"] == "text_differs"


def test_answers_stay_behind_the_wall(
    client: httpx.Client, guide: Collection, other_tenant: Tenant, make_key: Callable[..., str], server: str
) -> None:
    body = ask(client)
    other = {"Authorization": f"Bearer {make_key(other_tenant)}"}
    for path in (f"/api/v1/answers/{body['id']}", f"/api/v1/answers/{body['id']}/verify"):
        assert httpx.get(server + path, headers=other).status_code == 404
    assert client.get(f"/api/v1/answers/{uuid4()}").status_code == 404
    assert Answer.objects.count() == 0, "a query without a tenant sees nothing"


def test_a_key_without_the_read_scope_may_not_ask(tenant: Tenant, make_key: Callable[..., str], server: str) -> None:
    headers = {"Authorization": f"Bearer {make_key(tenant, 'write')}"}
    found = httpx.post(f"{server}/api/v1/answers", json={"question": "x"}, headers=headers)
    assert (found.status_code, found.json()["code"]) == (403, "missing_scope")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "status", "code", "pointer"),
    [
        ({}, 400, "invalid", "/question"),
        ({"question": ""}, 400, "invalid", "/question"),
        ({"question": "  "}, 400, "invalid", "/question"),
        ({"question": "a\x00b"}, 400, "invalid", "/question"),
        ({"question": 7}, 400, "invalid", "/question"),
        ({"question": "x" * 8001}, 400, "invalid", "/question"),
        ({"question": "x", "k": 0}, 400, "invalid", "/k"),
        ({"question": "x", "k": 201}, 400, "invalid", "/k"),
        ({"question": "x", "k": "5"}, 400, "invalid", "/k"),
        ({"question": "x", "colour": "red"}, 400, "invalid", "/colour"),
        ({"question": "x", "temperature": "hot"}, 400, "invalid", "/temperature"),
        ({"question": "x", "max_tokens": 0}, 400, "invalid", "/max_tokens"),
        ({"question": "x", "collections": "docs"}, 400, "invalid", "/collections"),
        ({"question": "x", "filters": {"a": 1}}, 400, "invalid", "/filters/a"),
        ({"question": "x", "as_of": "2026-01-01"}, 422, "zone_missing", "/as_of"),
        ({"question": "x", "consistency": "weak"}, 400, "invalid", "/consistency"),
        ({"question": "x", "min_versions": []}, 400, "invalid", "/min_versions"),
        ({"question": "x", "response_format": 3}, 400, "invalid", "/response_format"),
        ({"question": "x", "response_format": {}}, 422, "response_format_unavailable", "/response_format"),
        ({"question": "x", "conversation": "c"}, 400, "invalid", "/conversation"),
        ({"question": "x", "model": "gpt-9"}, 400, "unknown_model", "/model"),
        ({"question": "x", "collections": ["nowhere"]}, 404, "unknown_collection", None),
    ],
)
def test_a_bad_request_is_a_problem_document(
    client: httpx.Client,
    collection: Collection,
    fields: dict[str, Any],
    status: int,
    code: str,
    pointer: str | None,
    stream: bool,
) -> None:
    found = client.post("/api/v1/answers", json=fields | ({"stream": True} if stream else {}))
    body = found.json()
    assert (found.status_code, body["code"]) == (status, code), body
    assert found.headers["content-type"] == "application/problem+json"
    assert pointer is None or [error["pointer"] for error in body["errors"]] == [pointer]


def test_stream_must_be_a_boolean(client: httpx.Client) -> None:
    assert client.post("/api/v1/answers", json={"question": "x", "stream": "yes"}).status_code == 400
    assert client.post("/api/v1/answers", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400


def test_numbers_of_answering_are_exported(client: httpx.Client, guide: Collection) -> None:
    ask(client)
    exported = client.get("/metrics").text
    assert 'llm_requests_total{backend="extractive",outcome="ok"}' in exported
    assert 'rag_query_latency_seconds_count{stage="generate"}' in exported
