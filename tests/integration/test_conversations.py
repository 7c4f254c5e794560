"""Conversations over HTTP: what is searched for, what the model is told, what goes when sources or turns go."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import openai
from django.test import override_settings
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import remove
from apps.documents.models import Collection, Document
from apps.generation import conversations, retention
from apps.generation.models import Answer, Conversation
from tests.support.asking import ask, events
from tests.support.fake_llm import FakeServer
from tests.support.processes import Server

FIRST = "When do backups run?"
NEXT = "And how long are they kept?"
ANSWER = "Backups run every night at 02:30 UTC [1]."


def begin(client: httpx.Client, **fields: Any) -> str:
    begun = client.post("/api/v1/conversations", json=fields)
    assert begun.status_code == 201, begun.text
    return begun.json()["id"]


def test_a_question_is_understood_by_what_was_said_before(
    reader: httpx.Client, guide: Collection, llm: FakeServer
) -> None:
    talk = begin(reader, title="Backups")
    first = ask(reader, FIRST, conversation=talk)
    assert first["standalone_question"] is None, "nothing was said before"
    second = ask(reader, NEXT, conversation=talk)
    assert second["standalone_question"] == "How long are backups kept?"
    condensing, answering = llm.requests[-2:]
    assert f"Q: {FIRST}\nA: Backups run every night at 02:30 UTC ." in condensing["messages"][-1]["content"]
    assert condensing["messages"][-1]["content"].endswith(f"Last question: {NEXT}")
    told = [(message["role"], message["content"]) for message in answering["messages"]]
    assert told[1:3] == [("user", FIRST), ("assistant", "Backups run every night at 02:30 UTC .")]
    assert "What was said before is no source" in told[0][1]
    assert told[3][1].endswith(f"Question: {NEXT}")
    shown = reader.get(f"/api/v1/conversations/{talk}").json()
    assert [(turn["id"], turn["question"]) for turn in shown["turns"]] == [
        (first["id"], FIRST),
        (second["id"], NEXT),
    ]
    assert (shown["title"], shown["turns"][0]["answer"]) == ("Backups", ANSWER)
    assert talk in [one["id"] for one in reader.get("/api/v1/conversations").json()["results"]]
    with reader.stream(
        "POST", "/api/v1/answers", json={"question": "Since when?", "conversation": talk, "stream": True}
    ) as response:
        assert events(response.iter_lines())[-1][1]["standalone_question"] == "How long are backups kept?"
    assert len(reader.get(f"/api/v1/conversations/{talk}").json()["turns"]) == 3


def test_without_a_model_a_question_leans_on_the_one_before(
    server: str, api_key: str, guide: Collection, ingest: Callable[..., Any]
) -> None:
    ingest(guide, "Lunch is kept for an hour.", source_uri="lunch.md")
    with httpx.Client(base_url=server, headers={"Authorization": f"Bearer {api_key}"}) as client:
        talk = begin(client)
        ask(client, FIRST, conversation=talk)
        found = ask(client, NEXT, conversation=talk)
        assert found["standalone_question"] == f"{FIRST} {NEXT}"
        assert found["citations"][0]["source_uri"] == "guide.md"
        other = ask(client, "Which operator role does the restore command need?", conversation=talk)
        assert other["standalone_question"] == "Which operator role does the restore command need?"


def test_a_model_that_does_not_put_it_anew_is_no_obstacle(reader: httpx.Client, guide: Collection) -> None:
    talk = begin(reader)
    ask(reader, FIRST, conversation=talk)
    asked = f"{NEXT} script:condense-500"
    assert ask(reader, asked, conversation=talk)["standalone_question"] == f"{FIRST} {asked}"


def test_openais_messages_are_a_conversation(
    reader: httpx.Client, guide: Collection, llm: FakeServer, llm_web: Server, api_key: str, tenant: Tenant
) -> None:
    ai = openai.OpenAI(base_url=f"{llm_web.url}/v1", api_key=api_key, max_retries=0)
    said: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": FIRST},
        {"role": "assistant", "content": "A secret answer [1]."},
        {"role": "user", "content": NEXT},
    ]
    found = ai.chat.completions.create(model="ragsite/docs", messages=said)
    assert found.choices[0].message.content == ANSWER
    told = [(message["role"], message["content"]) for message in llm.requests[-1]["messages"]]
    assert told[1:3] == [("user", FIRST), ("assistant", "A secret answer .")]
    stored = found.id.removeprefix("chatcmpl-")
    with tenancy.scope(tenant.id):
        row = Answer.objects.get(id=stored)
    assert row.result["standalone_question"] == "How long are backups kept?"
    assert "secret" not in str(row.context) + str(row.request), "no erasure could find it there"
    again = reader.post(f"/api/v1/answers/{stored}/replay", json={}).json()
    assert again["difference"]["same"]
    assert llm.requests[-1]["messages"][-1]["content"].endswith("Question: How long are backups kept?")


def test_what_was_said_before_is_bounded(reader: httpx.Client, guide: Collection, tenant: Tenant) -> None:
    talk = begin(reader)
    for _ in range(3):
        ask(reader, FIRST, conversation=talk)
    with tenancy.scope(tenant.id):
        row = conversations.find(talk)  # type: ignore[arg-type]
        whole = conversations.said_before(row.id, context_tokens=100_000)
        part = conversations.said_before(row.id, context_tokens=300)
        assert conversations.said_before(row.id, context_tokens=10) == ()
    assert len(whole) == 3
    assert 0 < len(part) < 3
    assert part == whole[-len(part) :], "the last ones"


def test_many_short_turns_leave_room_for_passages(reader: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    """Each message takes some of a model's context beside its text."""
    said = [{"role": role, "content": "No."} for _ in range(499) for role in ("user", "assistant")]
    asked = {"model": "ragsite/docs", "messages": [*said, {"role": "user", "content": FIRST}]}
    found = reader.post("/v1/chat/completions", json=asked)
    assert found.status_code == 200, found.text
    assert found.json()["choices"][0]["message"]["content"] == ANSWER
    assert 50 < len(llm.requests[-1]["messages"]) < 499


def test_a_turn_is_kept_where_the_model_fails(reader: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    """Also of a question that was answered elsewhere before: what is given again is no turn of this conversation."""
    elsewhere = ask(reader, FIRST, temperature=0.2)
    talk = begin(reader)
    llm.fails = "500"
    try:
        turn = ask(reader, FIRST, conversation=talk)
    finally:
        llm.fails = ""
    assert (turn["degraded"], turn["id"] == elsewhere["id"]) == ("extractive", False)
    assert [each["id"] for each in reader.get(f"/api/v1/conversations/{talk}").json()["turns"]] == [turn["id"]]


def test_a_replay_is_told_what_was_said_then(reader: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    talk = begin(reader)
    ask(reader, FIRST, conversation=talk)
    second = ask(reader, NEXT, conversation=talk)
    then = llm.requests[-1]["messages"]
    again = reader.post(f"/api/v1/answers/{second['id']}/replay", json={}).json()
    assert again["difference"]["same"]
    assert again["standalone_question"] == second["standalone_question"]
    assert llm.requests[-1]["messages"] == then
    assert len(reader.get(f"/api/v1/conversations/{talk}").json()["turns"]) == 2, "a replay is no turn"


def test_what_is_deleted_is_not_told_again(
    reader: httpx.Client, guide: Collection, ingest: Callable[..., Any], tenant: Tenant, llm: FakeServer
) -> None:
    talk = begin(reader)
    ask(reader, FIRST, conversation=talk)
    second = ask(reader, NEXT, conversation=talk)
    with tenancy.scope(tenant.id):
        document = Document.objects.get(source_uri="guide.md")
    remove.delete(tenant_id=tenant.id, document_id=document.id)
    ingest(guide, "Backups run every night at 02:30 UTC.", source_uri="new.md")
    third = ask(reader, "Really?", conversation=talk)
    assert third["standalone_question"] is None, "there is nothing left to tell"
    assert len(llm.requests[-1]["messages"]) == 2
    refused = reader.post(f"/api/v1/answers/{second['id']}/replay", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "sources_gone")


def test_erasure_reaches_what_was_said_after(
    reader: httpx.Client, guide: Collection, ingest: Callable[..., Any], tenant: Tenant
) -> None:
    """The second answer is made from another document, but its model was told the first."""
    talk = begin(reader)
    ask(reader, FIRST, conversation=talk)
    ingest(guide, "Lunch is at noon.", source_uri="lunch.md")
    second = ask(reader, NEXT, conversation=talk, filters={"source_uri": {"$eq": "lunch.md"}})
    with tenancy.scope(tenant.id):
        document = Document.objects.get(source_uri="guide.md")
    remove.delete(tenant_id=tenant.id, document_id=document.id, erase=True)
    with tenancy.scope(tenant.id):
        assert Answer.objects.filter(id=second["id"]).count() == 0
    assert reader.get(f"/api/v1/answers/{second['id']}").status_code == 404
    assert reader.get(f"/api/v1/conversations/{talk}").json()["turns"] == []


def test_a_conversation_is_removed_with_its_turns(reader: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    talk = begin(reader)
    first = ask(reader, FIRST, conversation=talk)
    assert reader.delete(f"/api/v1/conversations/{talk}").status_code == 204
    assert reader.get(f"/api/v1/answers/{first['id']}").status_code == 404
    assert reader.get(f"/api/v1/conversations/{talk}").status_code == 404
    assert reader.delete(f"/api/v1/conversations/{talk}").status_code == 404
    refused = reader.post("/api/v1/answers", json={"question": FIRST, "conversation": talk})
    assert (refused.status_code, refused.json()["code"]) == (400, "unknown_conversation")


def test_an_answer_does_not_bring_a_removed_conversation_back(
    reader: httpx.Client, guide: Collection, llm: FakeServer
) -> None:
    talk = begin(reader)
    llm.go.clear()
    body = {"question": "When do backups run? script:held", "conversation": talk, "stream": True}
    with reader.stream("POST", "/api/v1/answers", json=body) as response:
        lines = response.iter_lines()
        next(line for line in lines if line == "event: message")
        assert reader.delete(f"/api/v1/conversations/{talk}").status_code == 204
        llm.go.set()
        name, data = events(lines)[-1]
    assert (name, data["status"]) == ("error", 404)


def test_another_tenants_conversation_is_unknown(reader: httpx.Client, guide: Collection, other_tenant: Tenant) -> None:
    theirs = conversations.create(tenant_id=other_tenant.id)
    refused = reader.post("/api/v1/answers", json={"question": FIRST, "conversation": str(theirs.id)})
    assert (refused.status_code, refused.json()["code"]) == (400, "unknown_conversation")
    assert reader.get(f"/api/v1/conversations/{theirs.id}").status_code == 404
    assert reader.get(f"/api/v1/conversations/{uuid4()}").status_code == 404


def test_a_conversations_id_is_a_string(reader: httpx.Client, guide: Collection) -> None:
    refused = reader.post("/api/v1/answers", json={"question": FIRST, "conversation": True})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")


def test_old_conversations_are_forgotten_when_their_turns_are(
    reader: httpx.Client, guide: Collection, tenant: Tenant
) -> None:
    empty, old = begin(reader), begin(reader)
    ask(reader, FIRST, conversation=old)
    with tenancy.scope(tenant.id):
        Conversation.objects.update(created_at=timezone.now() - timedelta(days=40))
    with override_settings(ANSWER_RETENTION_DAYS=30):
        retention.forget()
    assert reader.get(f"/api/v1/conversations/{empty}").status_code == 404
    assert reader.get(f"/api/v1/conversations/{old}").status_code == 200, "it has a young turn"
    with tenancy.scope(tenant.id):
        Answer.objects.update(created_at=timezone.now() - timedelta(days=40))
    with override_settings(ANSWER_RETENTION_DAYS=30):
        retention.forget()
    assert reader.get(f"/api/v1/conversations/{old}").status_code == 404
