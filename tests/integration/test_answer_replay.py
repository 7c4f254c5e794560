"""POST /api/v1/answers/{id}/replay: the same passages again, whatever has become of their documents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import erasure, remove
from apps.documents.models import Collection, DocumentVersion
from apps.generation import prompts
from apps.generation.models import Answer
from apps.generation.types import Usage
from tests.conftest import DATA
from tests.support.asking import GUIDE, ask
from tests.support.fake_llm import FakeServer, fake_llm
from tests.support.processes import Server
from tests.support.refusals import refused

QUESTION = "When do backups run every night?"


@pytest.fixture
def guide(collection: Collection, ingest: Callable[..., Any]) -> Collection:
    ingest(collection, GUIDE, source_uri="guide.md", title="Guide", media_type="text/markdown")
    ingest(collection, "Nightly backups are checked every morning.", source_uri="checks.txt", title="Checks")
    return collection


def replay(client: httpx.Client, answer: dict[str, Any], **fields: Any) -> dict[str, Any]:
    found = client.post(f"/api/v1/answers/{answer['id']}/replay", json=fields)
    assert found.status_code == 200, found.text
    return found.json()


def test_what_an_answer_was_made_from_is_stored_with_it(
    reader: httpx.Client, tenant: Tenant, guide: Collection, llm: FakeServer
) -> None:
    body = ask(reader, QUESTION, temperature=0.25, max_tokens=60)
    with tenancy.scope(tenant.id):
        row = Answer.objects.get(id=body["id"])
        assert (row.question, row.model, row.prompt_version) == (QUESTION, body["model"], prompts.VERSION)
        assert row.prompt_version == body["prompt_version"] and row.replay_of is None
        assert row.context["messages"] == llm.requests[-1]["messages"]
        limits = {"max_tokens": 60, "temperature": 0.25, "top_p": None, "stop": [], "seed": None}
        assert row.context["parameters"] == {"backend": "openai"} | limits
        assert row.result["usage"] == Usage(11, 7).as_json()
        assert {"search_ms", "first_token_ms", "generate_ms", "verify_ms", "total_ms"} <= row.result["timings"].keys()
        assert len(row.context["passages"]) == 3
        for passage in row.context["passages"]:
            version = DocumentVersion.objects.get(document_id=passage["document_id"], version=passage["version"])
            text = (version.text or "")[passage["start"] : passage["end"]]
            assert hashlib.sha256(text.encode()).hexdigest() == passage["sha256"]
            assert passage["chunk_id"] and passage["revision"] == 0 and passage["title"] in ("Guide", "Checks")


def test_a_replay_says_the_same_of_the_same(client: httpx.Client, tenant: Tenant, guide: Collection) -> None:
    before = ask(client, QUESTION, k=3)
    again = replay(client, before)
    assert again["difference"] == {"same": True, "answer_diff": "", "citations_changed": False}
    assert again["id"] != before["id"] == again["replay_of"]
    for name in ("answer", "citations", "sentences", "grounded", "model", "usage"):
        assert again[name] == before[name], name
    assert client.get(f"/api/v1/answers/{again['id']}").json() == again
    assert client.get(f"/api/v1/answers/{again['id']}/verify").json()["verified"]
    assert "replay_of" not in client.get(f"/api/v1/answers/{before['id']}").json()
    with tenancy.scope(tenant.id):
        one, other = (Answer.objects.get(id=body["id"]) for body in (before, again))
        assert other.replay_of_id == one.id and other.context == one.context and other.request == one.request


def test_a_replay_reads_the_versions_of_then(
    client: httpx.Client, guide: Collection, ingest: Callable[..., Any]
) -> None:
    before = ask(client, QUESTION)
    later = GUIDE.replace("02:30", "04:00").replace("# Backups", "# Copies")
    ingest(guide, later, source_uri="guide.md", title="Later", media_type="text/markdown")
    ingest(guide, "Backups run every night at noon.", source_uri="noon.txt")
    assert "04:00" in ask(client, QUESTION)["answer"]
    again = replay(client, before)
    assert again["difference"]["same"] and again["citations"] == before["citations"]
    assert again["citations"][0]["title"] == "Guide" and "02:30" in again["answer"]
    assert replay(client, again)["replay_of"] == again["id"]


def test_another_model_is_asked_with_the_same_prompt_and_the_difference_told(
    reader: httpx.Client, guide: Collection, llm: FakeServer
) -> None:
    before = ask(reader, QUESTION)
    assert before["model"] == "normal"
    asked, first = len(llm.requests), llm.requests[-1]
    same = replay(reader, before)
    assert len(llm.requests) == asked + 1, "it is not given from the cache"
    assert llm.requests[-1] == first and same["difference"]["same"] and not same["cached"]
    other = replay(reader, before, model="extractive")
    assert other["model"] == "extractive" and len(llm.requests) == asked + 1
    told = other["difference"]
    assert not told["same"]
    removed = [line for line in told["answer_diff"].splitlines() if line.startswith("-") and not line.startswith("---")]
    added = [line for line in told["answer_diff"].splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert "".join(line[1:] for line in removed) in before["answer"] and removed and added
    assert all(line[1:] in other["answer"] for line in added)
    assert ask(reader, QUESTION)["id"] == before["id"], "a replay is never given to who asks"
    refused(reader.post(f"/api/v1/answers/{before['id']}/replay", json={"model": "nobody"}), 400, pointer="/model")


def test_a_replay_is_never_the_answer_before_though_its_model_is_away(guide: Collection, api_key: str) -> None:
    with ExitStack() as stack:
        with fake_llm() as served:
            web = stack.enter_context(Server(DATA, LLM_URL=served.url))
            reader = stack.enter_context(web.client(api_key))
            before = ask(reader, QUESTION)
        again = replay(reader, before)
        assert ask(reader, QUESTION, temperature=0.5)["degraded"] == "cached", "as others are answered now"
    assert (again["degraded"], again["cached"], again["replay_of"]) == ("extractive", False, before["id"])
    assert not again["difference"]["same"]


def test_citations_that_differ_are_told(client: httpx.Client, tenant: Tenant, guide: Collection) -> None:
    before = ask(client, QUESTION)
    with tenancy.scope(tenant.id):  # as if another sentence had been cited then
        row = Answer.objects.get(id=before["id"])
        row.result["citations"][0]["end"] -= 1
        row.save()
    told = replay(client, before)["difference"]
    assert told == {"same": False, "answer_diff": "", "citations_changed": True}


def test_an_answer_from_nothing_is_replayed_too(client: httpx.Client, collection: Collection) -> None:
    before = ask(client, QUESTION)
    assert before["abstained"]
    assert replay(client, before)["difference"]["same"]


def test_a_deleted_source_is_a_conflict_that_tells_nothing_of_it(
    client: httpx.Client, tenant: Tenant, guide: Collection
) -> None:
    before = ask(client, QUESTION)
    remove.delete(tenant_id=tenant.id, document_id=UUID(before["citations"][0]["document_id"]))
    problem = refused(client.post(f"/api/v1/answers/{before['id']}/replay", json={}), 409, "sources_gone")
    assert not any(word in str(problem) for word in ("Guide", "guide.md", "02:30", before["citations"][0]["chunk_id"]))


def test_a_text_that_is_not_what_it_was_is_not_replayed(
    client: httpx.Client, tenant: Tenant, guide: Collection
) -> None:
    before = ask(client, QUESTION)
    with tenancy.scope(tenant.id):
        row = Answer.objects.get(id=before["id"])
        row.context["passages"][0]["start"] += 1
        row.save()
    refused(client.post(f"/api/v1/answers/{before['id']}/replay"), 409, "sources_gone")


def test_an_erasure_takes_replays_along(client: httpx.Client, tenant: Tenant, guide: Collection) -> None:
    before = ask(client, QUESTION)
    again = replay(client, replay(client, before))
    document_id = UUID(before["citations"][0]["document_id"])
    remove.delete(tenant_id=tenant.id, document_id=document_id, erase=True)
    for body in (before, again):
        refused(client.get(f"/api/v1/answers/{body['id']}"), 404)
        refused(client.post(f"/api/v1/answers/{body['id']}/replay"), 404)
    with tenancy.scope(tenant.id):
        assert set(erasure.traces(document_id).values()) == {0} and not Answer.objects.exists()


def test_replays_need_read_and_stay_behind_the_wall(
    client: httpx.Client,
    guide: Collection,
    tenant: Tenant,
    other_tenant: Tenant,
    make_key: Callable[..., str],
    web: Server,
) -> None:
    path = f"/api/v1/answers/{ask(client, QUESTION)['id']}/replay"
    with web.client(make_key(other_tenant)) as stranger:
        refused(stranger.post(path, json={}), 404)
    with web.client(make_key(tenant, "write", "admin")) as writer:
        refused(writer.post(path, json={}), 403, "missing_scope")
    with web.client(make_key(tenant, "read")) as reader:
        assert reader.post(path).status_code == 200
    refused(client.post(path, json={"question": "another?"}), 400, pointer="/question")
    refused(client.post(path, json={"model": 5}), 400, pointer="/model")
    refused(client.post(f"/api/v1/answers/{uuid4()}/replay"), 404)
