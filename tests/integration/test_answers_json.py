"""`response_format`: answers as JSON of a schema, over HTTP, with a model that keeps it, or does not."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from apps.documents.models import Collection
from tests.support.asking import ask, events
from tests.support.fake_llm import FakeServer
from tests.support.processes import Server

SCHEMA = {
    "type": "object",
    "properties": {
        "when": {"type": "string"},
        "days": {"type": "array", "items": {"type": "integer"}},
        "kept": {"type": "string"},
    },
    "required": ["when", "days", "kept"],
    "additionalProperties": False,
}


class Backups(BaseModel):
    when: str
    days: list[int]
    kept: str


@pytest.mark.parametrize("wanted", [SCHEMA, {"type": "json_schema", "json_schema": {"name": "b", "schema": SCHEMA}}])
def test_an_answer_is_json_of_the_schema_with_its_citations(
    reader: httpx.Client, guide: Collection, llm: FakeServer, wanted: Any
) -> None:
    body = ask(reader, "When do backups run? script:json", response_format=wanted)
    said = json.loads(body["answer"])
    assert said == {"when": "Backups run every night at 02:30 UTC [1].", "days": [35], "kept": "For 35 days [1]."}
    assert "[35]" not in body["answer"], "it would look like a citation"
    assert [citation["marker"] for citation in body["citations"]] == [1]
    assert [sentence["text"] for sentence in body["sentences"]] == [said["when"], said["kept"]]
    assert body["grounded"] == 1.0
    sent = llm.requests[-1]
    assert sent["response_format"]["json_schema"]["schema"] == SCHEMA, "for a server that decodes by it"
    assert '"additionalProperties":false' in sent["messages"][0]["content"], "and for one that does not"
    assert reader.get(f"/api/v1/answers/{body['id']}/verify").json()["verified"]


def test_a_stream_gives_the_json_whole(reader: httpx.Client, guide: Collection) -> None:
    body = {"question": "When? script:json", "stream": True, "response_format": SCHEMA}
    with reader.stream("POST", "/api/v1/answers", json=body) as response:
        found = events(response.iter_lines())
    deltas = [data["delta"] for name, data in found if name == "message"]
    assert deltas == [found[-1][1]["answer"]]
    Backups.model_validate_json(deltas[0])


def test_what_is_not_as_asked_for_is_sent_back_once(reader: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    before = len(llm.requests)
    body = ask(reader, "When do backups run? script:json-late", response_format=SCHEMA)
    assert json.loads(body["answer"])["days"] == [35]
    first, again = llm.requests[before:]
    assert again["messages"][: len(first["messages"])] == first["messages"]
    assert [message["role"] for message in again["messages"][-2:]] == ["assistant", "user"]
    assert "not valid JSON" in again["messages"][-1]["content"]
    assert body["usage"]["completion_tokens"] == 14, "of both"


def test_what_is_still_not_is_no_answer(reader: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    before = len(llm.requests)
    asked = {"question": "When do backups run? script:json-cut", "response_format": SCHEMA}
    refused = reader.post("/api/v1/answers", json=asked)
    assert (refused.status_code, refused.json()["code"], refused.json()["kind"]) == (
        503,
        "llm_unavailable",
        "bad_format",
    ), "and no quotes, which are no JSON"
    assert len(llm.requests) - before == 2
    with reader.stream("POST", "/api/v1/answers", json=asked | {"stream": True}) as response:
        name, data = events(response.iter_lines())[-1]
    assert (name, data["code"]) == ("error", "llm_unavailable")


def test_a_server_without_schemas_goes_by_the_prompt(reader: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    body = ask(reader, "When do backups run? script:json-unguided", response_format=SCHEMA)
    assert json.loads(body["answer"])["days"] == [35]
    assert "response_format" not in llm.requests[-1]


def test_openais_client_parses_it(reader: httpx.Client, guide: Collection, llm_web: Server, api_key: str) -> None:
    ai = openai.OpenAI(base_url=f"{llm_web.url}/v1", api_key=api_key, max_retries=0)
    question: Any = [{"role": "user", "content": "When do backups run? script:json"}]
    found = ai.chat.completions.parse(model="ragsite/docs", messages=question, response_format=Backups)
    assert found.choices[0].message.parsed == Backups(
        when="Backups run every night at 02:30 UTC [1].", days=[35], kept="For 35 days [1]."
    )
    text = ai.chat.completions.create(model="ragsite/docs", messages=question, response_format={"type": "json_object"})
    Backups.model_validate_json(text.choices[0].message.content or "")


@pytest.mark.parametrize(
    ("question", "filters"), [("When? script:json-none", {}), ("When?", {"source_uri": {"$eq": "none"}})]
)
def test_that_the_sources_do_not_answer_is_no_json(
    reader: httpx.Client, guide: Collection, llm_web: Server, api_key: str, question: str, filters: Any
) -> None:
    """Whether the model says so, or nothing was found: OpenAI's clients read it as a refusal."""
    body = ask(reader, question, response_format=SCHEMA, filters=filters)
    assert (body["abstained"], body["answer"]) == (True, "The sources do not answer this question.")
    ai = openai.OpenAI(base_url=f"{llm_web.url}/v1", api_key=api_key, max_retries=0)
    fields: Any = {"model": "ragsite/docs", "messages": [{"role": "user", "content": question}]}
    fields["extra_body"] = {"filters": filters}
    message = ai.chat.completions.parse(**fields, response_format=Backups).choices[0].message
    assert (message.parsed, message.content, message.refusal) == (None, None, body["answer"])
    schema: Any = {"type": "json_schema", "json_schema": {"name": "b", "schema": SCHEMA}}
    chunks = ai.chat.completions.create(**fields, response_format=schema, stream=True)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.refusal or "" for delta in deltas) == body["answer"]
    assert not any(delta.content for delta in deltas)


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ("json", "/response_format"),
        ({"type": "strange"}, "/response_format"),
        ({"type": "json_schema"}, "/response_format/json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}, "/response_format/json_schema/name"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": 3}}}, "/response_format/json_schema/schema"),
        ({"$ref": "http://127.0.0.1:1/schema"}, "/response_format"),
        ({"properties": {"when": {"$ref": "#/$defs/none"}}}, "/response_format"),
        ({"type": "object", "properties": {"a [1]": {}}}, "/response_format"),
        ({"enum": ["[1]"]}, "/response_format"),
        ({"patternProperties": {"^a": {}}}, "/response_format"),
        ({"description": "x" * 40_000}, "/response_format"),
    ],
)
def test_a_format_that_cannot_be_kept_is_refused(
    reader: httpx.Client, guide: Collection, llm: FakeServer, wanted: Any, pointer: str
) -> None:
    before = len(llm.requests)
    refused = reader.post("/api/v1/answers", json={"question": "When?", "response_format": wanted})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, pointer)
    assert len(llm.requests) == before


def test_what_is_cited_after_writing_still_follows_the_schema(reader: httpx.Client, guide: Collection) -> None:
    short = {"properties": {"when": {"type": "string", "maxLength": 38}, "kept": {"type": "string"}}}
    body = ask(reader, "When do backups run? script:json", response_format=short, attribution="after")
    assert json.loads(body["answer"])["when"] == "Backups run every night at 02:30 UTC."
    assert json.loads(body["answer"])["kept"] == "For 35 days [1]."


def test_only_a_language_model_writes_json(reader: httpx.Client, guide: Collection) -> None:
    refused = reader.post(
        "/api/v1/answers", json={"question": "When?", "response_format": SCHEMA, "model": "extractive"}
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "response_format_unavailable")
