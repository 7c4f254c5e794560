"""Answers given again (generation/answer_cache.py): the id in Redis, the answer in Postgres."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.redis import redis_client
from apps.documents import edit, erasure, remove
from apps.documents.models import Collection, Document
from apps.generation.models import Answer
from tests.conftest import make_collection
from tests.support.asking import GUIDE, ask, events
from tests.support.fake_llm import FakeServer
from tests.support.processes import Server

QUESTION = "When do backups run?"
Ingest = Callable[..., Any]


def document_of(collection: Collection) -> Document:
    with tenancy.scope(collection.tenant_id):
        return Document.objects.get(collection=collection)


def test_the_second_time_the_model_is_not_asked(reader: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    first = ask(reader, QUESTION)
    asked = len(llm.requests)
    second = ask(reader, QUESTION)
    assert (first["cached"], second["cached"]) == (False, True)
    assert len(llm.requests) == asked
    for name in ("id", "answer", "citations", "sentences", "grounded", "model", "degraded", "usage"):
        assert second[name] == first[name], name
    assert reader.get(f"/api/v1/answers/{first['id']}").json() == first
    assert reader.get(f"/api/v1/answers/{second['id']}/verify").json()["verified"]


def test_a_stream_gives_the_same_events(reader: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    first = ask(reader, QUESTION)
    asked = len(llm.requests)
    with reader.stream("POST", "/api/v1/answers", json={"question": QUESTION, "stream": True}) as response:
        told = events(response.iter_lines())
    assert len(llm.requests) == asked
    names = [name for name, _ in told]
    assert names == ["search_results", "message", *["citation"] * len(first["citations"]), "final_answer"]
    assert "".join(body["delta"] for name, body in told if name == "message") == first["answer"]
    assert told[-1][1]["cached"] and told[-1][1]["id"] == first["id"]


@pytest.mark.parametrize(
    "asked_otherwise",
    [{"model": "normal"}, {"k": 3}, {"max_tokens": 99}, {"temperature": 0.7}, {"question": "When do backups end?"}],
)
def test_what_is_asked_otherwise_is_answered_anew(
    reader: httpx.Client, guide: Collection, llm: FakeServer, asked_otherwise: dict[str, Any]
) -> None:
    ask(reader, QUESTION)
    asked = len(llm.requests)
    assert not ask(reader, **{"question": QUESTION, **asked_otherwise})["cached"]
    assert len(llm.requests) == asked + 1


def test_who_wants_variety_gets_it(reader: httpx.Client, guide: Collection) -> None:
    assert not any(ask(reader, QUESTION, temperature=0.7)["cached"] for _ in range(3))


def test_what_is_a_makeshift_is_not_kept(reader: httpx.Client, guide: Collection) -> None:
    for question in ("script:500 When do backups run?", "script:length When do backups run?"):
        assert not any(ask(reader, question)["cached"] for _ in range(2)), question
    with tenancy.scope(guide.tenant_id):
        remove_all = document_of(guide)
    remove.delete(tenant_id=guide.tenant_id, document_id=remove_all.id)
    assert not any(ask(reader, QUESTION)["cached"] for _ in range(2))  # nothing to answer from


def _edit_text(guide: Collection, ingest: Ingest) -> None:
    ingest(guide, GUIDE + "\n\nMore.", source_uri="guide.md", title="Guide", media_type="text/markdown")


def _edit_title(guide: Collection, ingest: Ingest) -> None:
    document = document_of(guide)
    with tenancy.scope(guide.tenant_id):
        edit.edit(document.id, {"title": "Handbook"})


def _delete(guide: Collection, ingest: Ingest) -> None:
    remove.delete(tenant_id=guide.tenant_id, document_id=document_of(guide).id)


def _erase(guide: Collection, ingest: Ingest) -> None:
    remove.delete(tenant_id=guide.tenant_id, document_id=document_of(guide).id, erase=True)


@pytest.mark.parametrize("change", [_edit_text, _edit_title, _delete, _erase], ids=lambda each: each.__name__)
def test_a_change_of_the_source_ends_it(
    reader: httpx.Client, guide: Collection, ingest: Ingest, change: Callable[..., None]
) -> None:
    first = ask(reader, QUESTION)
    assert ask(reader, QUESTION)["cached"]
    document_id = document_of(guide).id
    change(guide, ingest)
    after = ask(reader, QUESTION)
    assert not after["cached"]
    assert after["id"] != first["id"]
    if change is _edit_title:
        assert {citation["title"] for citation in after["citations"]} == {"Handbook"}
    if change is _erase:
        assert reader.get(f"/api/v1/answers/{first['id']}").status_code == 404
        with tenancy.scope(guide.tenant_id):
            assert not any(erasure.traces(document_id).values())


def test_redis_holds_nothing_but_the_id_and_may_forget_it(reader: httpx.Client, guide: Collection) -> None:
    first = ask(reader, QUESTION)
    names = [name for name in redis_client().keys("*answer:*") if str(guide.tenant_id).encode() in name]
    assert len(names) == 1
    held = redis_client().get(names[0])
    assert held == first["id"].encode()
    redis_client().delete(names[0])
    again = ask(reader, QUESTION)
    assert not again["cached"] and again["answer"] == first["answer"]


def test_an_answer_that_is_gone_is_written_anew(reader: httpx.Client, guide: Collection) -> None:
    """Retention, or a restored backup: the id in Redis leads nowhere."""
    first = ask(reader, QUESTION)
    with tenancy.scope(guide.tenant_id):
        Answer.objects.filter(id=first["id"]).delete()
    again = ask(reader, QUESTION)
    assert not again["cached"] and again["id"] != first["id"]


def test_another_tenant_with_the_same_document_has_its_own(
    reader: httpx.Client, guide: Collection, other_tenant: Tenant, ingest: Ingest, llm_web: Server, make_key: Callable
) -> None:
    first = ask(reader, QUESTION)
    theirs = make_collection(other_tenant)
    ingest(theirs, GUIDE, source_uri="guide.md", title="Guide", media_type="text/markdown")
    with llm_web.client(make_key(other_tenant)) as client:
        body = ask(client, QUESTION)
    assert not body["cached"] and body["id"] != first["id"]
