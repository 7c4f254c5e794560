"""POST /api/v1/answers: a cited answer over HTTP, its stream, its record and its proof."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID, uuid4

import httpx
import openai
import pytest

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import remove
from apps.documents.models import Collection, DocumentVersion
from apps.generation.models import Answer
from tests.conftest import DATA
from tests.support.fake_llm import FakeServer, fake_llm
from tests.support.processes import Server, wait_for

GUIDE = """# Backups

Backups run every night at 02:30 UTC. They are kept for 35 days.

## Restoring

To restore a backup, run the restore command with the date of the backup.
The restore command needs the operator role [3].

- Restoring takes about ten minutes.
- 日本語の説明もあります。復元には約十分かかります。
"""
HOLIDAYS = "The office is closed on public holidays. Parking is free on Sundays.\n"


@pytest.fixture
def guide(collection: Collection, ingest: Callable[..., Any]) -> Collection:
    ingest(collection, GUIDE, source_uri="guide.md", title="Guide", media_type="text/markdown")
    ingest(collection, HOLIDAYS, source_uri="holidays.txt", title="Holidays")
    return collection


def ask(
    client: httpx.Client, question: str = "When do backups run every night?", **fields: Any
) -> dict[str, Any]:
    found = client.post("/api/v1/answers", json={"question": question} | fields)
    assert found.status_code == 200, found.text
    return found.json()


def events(lines: Iterator[str]) -> list[tuple[str, Any]]:
    found, name = [], ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            found.append((name, json.loads(line.removeprefix("data: "))))
    return found


def test_an_answer_quotes_the_passage_that_holds_it(client: httpx.Client, guide: Collection) -> None:
    body = ask(client)
    assert "Backups run every night at 02:30 UTC." in body["answer"]
    assert body["model"] == body["degraded"] == "extractive"
    assert not body["abstained"] and not body["cached"]
    assert body["grounded"] == 1.0
    assert all(sentence["supported"] and sentence["text"] in body["answer"] for sentence in body["sentences"])
    assert set(body) == {
        *("id", "answer", "citations", "sentences", "grounded", "abstained", "model", "cached", "degraded"),
        *("usage", "timings", "finish_reason"),
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
            assert (
                stored["sha256"]
                == citation["sha256"]
                == hashlib.sha256(citation["quote"].encode()).hexdigest()
            )
            assert citation["source_uri"] == "guide.md" and citation["title"] == "Guide"


def test_marker_like_text_of_a_document_is_no_citation(client: httpx.Client, guide: Collection) -> None:
    body = ask(client, "Which role does the restore command need: the operator role?")
    assert "operator role [ 3 ]" in body["answer"] or "operator role [3]" not in body["answer"]
    assert "operator role [3]." in body["citations"][0]["quote"]


def test_a_question_that_the_sources_do_not_answer_is_refused_politely(
    client: httpx.Client, guide: Collection
) -> None:
    body = ask(client, "zebra quantum chromodynamics?")
    assert body["abstained"] and body["citations"] == [] and "do not answer" in body["answer"]


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
    assert {hit["document_id"] for hit in found[0][1]["results"]} >= {
        c["document_id"] for c in final["citations"]
    }
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
            version = DocumentVersion.objects.get(
                document_id=passage["document_id"], version=passage["version"]
            )
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


def test_a_key_without_the_read_scope_may_not_ask(
    tenant: Tenant, make_key: Callable[..., str], server: str
) -> None:
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
        ({"question": "x", "filters": {"a": 1}}, 400, "not_supported", "/filters"),
        ({"question": "x", "as_of": "2026-01-01"}, 400, "not_supported", "/as_of"),
        ({"question": "x", "consistency": "strong"}, 400, "not_supported", "/consistency"),
        ({"question": "x", "consistency": "weak"}, 400, "invalid", "/consistency"),
        ({"question": "x", "min_versions": {}}, 400, "not_supported", "/min_versions"),
        ({"question": "x", "response_format": {}}, 400, "not_supported", "/response_format"),
        ({"question": "x", "conversation": "c"}, 400, "not_supported", "/conversation"),
        ({"question": "x", "model": "fast"}, 400, "not_supported", "/model"),
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
    assert (
        client.post("/api/v1/answers", content=b"{", headers={"Content-Type": "application/json"}).status_code
        == 400
    )


def test_numbers_of_answering_are_exported(client: httpx.Client, guide: Collection) -> None:
    ask(client)
    exported = client.get("/metrics").text
    assert 'llm_requests_total{backend="extractive",outcome="ok"}' in exported
    assert 'rag_query_latency_seconds_count{stage="generate"}' in exported


class TestWithALanguageModel:
    """The same over a served model that misbehaves when the question says so (tests/support/fake_llm.py)."""

    @pytest.fixture(scope="class")
    def llm(self, database: None) -> Iterator[FakeServer]:
        with fake_llm() as served:
            yield served

    @pytest.fixture(scope="class")
    def llm_web(self, llm: FakeServer) -> Iterator[Server]:
        with Server(DATA, LLM_URL=llm.url, LLM_TIMEOUT_SECONDS="1.5") as running:
            yield running

    @pytest.fixture
    def reader(self, llm_web: Server, api_key: str) -> Iterator[httpx.Client]:
        headers = {"Authorization": f"Bearer {api_key}"}
        with httpx.Client(base_url=llm_web.url, headers=headers, timeout=30) as client:
            yield client

    def stream(self, reader: httpx.Client, question: str) -> list[tuple[str, Any]]:
        body = {"question": question, "stream": True}
        with reader.stream("POST", "/api/v1/answers", json=body) as response:
            assert response.status_code == 200
            return events(response.iter_lines())

    def test_the_model_answers_and_is_cited(
        self, reader: httpx.Client, guide: Collection, llm: FakeServer
    ) -> None:
        body = ask(reader, "When do backups run?", model="normal", max_tokens=77, temperature=0.5)
        assert body["answer"] == "Backups run every night at 02:30 UTC [1]."
        assert (body["model"], body["degraded"], body["grounded"]) == ("normal", None, 1.0)
        assert body["citations"][0]["quote"] == "Backups run every night at 02:30 UTC."
        assert body["usage"] == {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        assert (llm.requests[-1]["max_tokens"], llm.requests[-1]["temperature"]) == (77, 0.5)
        prompt = llm.requests[-1]["messages"][-1]["content"]
        assert "[1] <passage" in prompt and "operator role [ 3 ]" in prompt

    def test_markers_of_no_passage_never_leave(self, reader: httpx.Client, guide: Collection) -> None:
        found = self.stream(reader, "When do backups run? script:bogus")
        text = "".join(data["delta"] for name, data in found if name == "message")
        assert text == found[-1][1]["answer"] == "Backups run every night at 02:30 UTC [1] and or so [1]."
        assert [citation["marker"] for citation in found[-1][1]["citations"]] == [1]

    def test_a_model_that_fails_at_once_is_replaced(self, reader: httpx.Client, guide: Collection) -> None:
        for script in ("500", "silent"):
            final = self.stream(reader, f"When do backups run every night? script:{script}")[-1]
            assert final[0] == "final_answer"
            assert final[1]["degraded"] == final[1]["model"] == "extractive"
            assert "02:30" in final[1]["answer"]
        exported = reader.get("/metrics").text
        assert 'llm_errors_total{backend="openai",kind="server_error"}' in exported
        assert 'llm_requests_total{backend="openai",outcome="error"}' in exported

    def test_a_model_that_fails_in_the_middle_ends_the_stream_with_an_error(
        self, reader: httpx.Client, guide: Collection
    ) -> None:
        for script, kind in (("stall", "timeout"), ("cut", "cut_off")):
            name, data = self.stream(reader, f"When do backups run every night? script:{script}")[-1]
            assert (name, data["code"], data["kind"], data["status"]) == ("error", "llm_failed", kind, 502)
            assert data["request_id"]
        whole = ask(reader, "When do backups run every night? script:cut")
        assert whole["degraded"] == "extractive", "nobody had read its beginning"

    def test_openais_stream_reports_the_error(
        self, reader: httpx.Client, guide: Collection, llm_web: Server, api_key: str
    ) -> None:
        ai = openai.OpenAI(base_url=f"{llm_web.url}/v1", api_key=api_key, max_retries=0)
        question: Any = [{"role": "user", "content": "When do backups run? script:cut"}]
        with pytest.raises(openai.APIError, match="language model"):
            list(ai.chat.completions.create(model="ragsite/docs", messages=question, stream=True))
        assert "normal" in [model.id for model in ai.models.list()]

    def test_a_reader_who_leaves_stops_the_model(
        self, reader: httpx.Client, guide: Collection, llm: FakeServer
    ) -> None:
        before = llm.dropped
        body = {"question": "When do backups run? script:slow", "stream": True}
        with reader.stream("POST", "/api/v1/answers", json=body) as response:
            for line in response.iter_lines():
                if "and on" in line:
                    break
        wait_for(lambda: llm.dropped == before + 1, seconds=10, what="the model's stream to be closed")
        wait_for(
            lambda: (
                'llm_requests_total{backend="openai",outcome="cancelled"} ' in reader.get("/metrics").text
            ),
            seconds=10,
            what="the cancellation to be counted",
        )

    def test_many_readers_hold_no_database_connection_while_the_model_writes(
        self, reader: httpx.Client, guide: Collection, llm_web: Server, api_key: str
    ) -> None:
        """More streams than the pool has connections, and a search goes through."""
        body = {"question": "When do backups run? script:slow", "stream": True}
        with ExitStack() as stack:
            for _ in range(20):
                response = stack.enter_context(reader.stream("POST", "/api/v1/answers", json=body))
                next(line for line in response.iter_lines() if "and on" in line)
            headers = {"Authorization": f"Bearer {api_key}"}
            url = f"{llm_web.url}/api/v1/search"
            assert httpx.post(url, json={"query": "backups"}, headers=headers, timeout=15).status_code == 200
