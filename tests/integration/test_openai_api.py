"""/v1: the official client works unchanged, and answers carry their sources."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import openai
import pytest

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import collections, spaces
from apps.documents.embedding.openai_compatible import estimate_tokens
from apps.documents.models import Collection

QUESTION = "When do backups run every night?"


@pytest.fixture
def ai(server: str, api_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key=api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def guide(collection: Collection, ingest: Callable[..., Any]) -> Collection:
    ingest(
        collection,
        "Backups run every night at 02:30 UTC. Parking is free.",
        source_uri="guide.txt",
        title="Guide",
    )
    return collection


def second(tenant: Tenant) -> Collection:
    with tenancy.scope(tenant.id):
        return collections.create(tenant_id=tenant.id, slug="more", name="More")


def ask(ai: openai.OpenAI, **fields: Any) -> Any:
    values: dict[str, Any] = {"model": "ragsite/docs", "messages": [{"role": "user", "content": QUESTION}]}
    return ai.chat.completions.create(**(values | fields))


def test_models_are_the_collections_and_the_raw_models(ai: openai.OpenAI, guide: Collection, tenant: Tenant) -> None:
    second(tenant)
    models = {model.id: model for model in ai.models.list()}
    assert {"ragsite/docs", "ragsite/more", "extractive", guide.space.model} <= set(models)
    assert ai.models.retrieve("ragsite/docs").owned_by == "ragsite"
    assert models["ragsite/docs"].created > 0
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("ragsite/none")


def test_a_tenant_sees_its_own_collections_only(
    guide: Collection, other_tenant: Tenant, make_key: Callable[..., str], server: str
) -> None:
    other = openai.OpenAI(base_url=f"{server}/v1", api_key=make_key(other_tenant), max_retries=0)
    assert not [model.id for model in other.models.list() if model.id.startswith("ragsite/")]
    with pytest.raises(openai.NotFoundError):
        ask(other)


def test_an_answer_has_annotations_at_its_markers(ai: openai.OpenAI, guide: Collection) -> None:
    found = ask(ai)
    message = found.choices[0].message
    assert found.object == "chat.completion" and found.model == "ragsite/docs"
    assert found.choices[0].finish_reason == "stop" and message.role == "assistant"
    assert "02:30 UTC" in message.content
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens > 0
    markers = list(re.finditer(r"\[\d+\]", message.content))
    assert len(markers) == len(message.annotations) > 0
    for marker, annotation in zip(markers, message.annotations, strict=True):
        cited = annotation.url_citation
        assert annotation.type == "url_citation"
        assert (cited.start_index, cited.end_index) == marker.span()
        assert (cited.url, cited.title) == ("guide.txt", "Guide")
    citation = message.citations[0]
    assert citation["quote"] in "Backups run every night at 02:30 UTC. Parking is free."


def test_a_stream_tells_the_same_as_the_whole(ai: openai.OpenAI, guide: Collection) -> None:
    whole = ask(ai).choices[0].message
    chunks = list(ask(ai, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].object == "chat.completion.chunk"
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices].count("stop") == 1
    last = chunks[-2].choices[0]
    assert last.finish_reason == "stop" and last.delta.citations == whole.citations
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_ends_with_done_and_has_no_usage_unasked(client: httpx.Client, guide: Collection) -> None:
    body = {"model": "ragsite/docs", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]" and "usage" not in "".join(lines)


@pytest.mark.parametrize(
    ("fields", "content", "reason"),
    [
        ({"max_tokens": 9}, "Backups run every [1]", "length"),
        ({"max_completion_tokens": 1}, "Bac", "length"),
        ({"max_tokens": 1000}, "Backups run every night at 02:30 UTC. [1]", "stop"),
        ({"stop": " at"}, "Backups run every night", "stop"),
        ({"stop": ["nowhere", "UTC", "1]"]}, "Backups run every night at 02:30", "stop"),
        ({"stop": ["]"]}, "Backups run every night at 02:30 UTC.", "stop"),
        ({"stop": ["Backups"]}, "", "stop"),
        ({"stop": ["02:30"], "max_tokens": 3}, "Backups", "length"),
    ],
)
def test_limits_hold_streamed_and_not(
    ai: openai.OpenAI, guide: Collection, fields: dict[str, Any], content: str, reason: str
) -> None:
    found = ask(ai, **fields)
    choice = found.choices[0]
    assert (choice.message.content, choice.finish_reason) == (content, reason)
    limit = fields.get("max_tokens") or fields.get("max_completion_tokens") or 1000
    assert estimate_tokens(content) <= found.usage.completion_tokens <= limit
    assert len(choice.message.citations) == content.count("[1]")
    chunks = list(ask(ai, stream=True, stream_options={"include_usage": True}, **fields))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == content
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == [reason]
    assert chunks[-1].usage.completion_tokens == found.usage.completion_tokens


def test_an_answer_that_nothing_was_found_for_keeps_to_its_limit(ai: openai.OpenAI, collection: Collection) -> None:
    found = ask(ai, max_tokens=5)
    assert (found.choices[0].message.content, found.choices[0].finish_reason) == ("The sources do", "length")
    assert found.usage.completion_tokens == 5


def test_the_answer_can_be_verified_by_its_id(ai: openai.OpenAI, client: httpx.Client, guide: Collection) -> None:
    answer_id = ask(ai).id.removeprefix("chatcmpl-")
    assert client.get(f"/api/v1/answers/{answer_id}/verify").json()["verified"] is True


def test_openai_clients_extras_are_accepted(ai: openai.OpenAI, guide: Collection) -> None:
    found = ask(
        ai,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        ],
        n=1,
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=200,
        stop=["\n\n\n"],
        seed=1,
        user="someone",
        metadata={"trace": "1"},
        presence_penalty=0.1,
        response_format={"type": "text"},
        parallel_tool_calls=True,
        extra_body={"collections": ["docs"], "anything": {"else": 1}},
    )
    assert "02:30" in found.choices[0].message.content


def test_the_model_may_be_omitted_while_there_is_one_collection(
    client: httpx.Client, guide: Collection, tenant: Tenant
) -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}]}
    found = client.post("/v1/chat/completions", json=body)
    assert found.status_code == 200 and found.json()["model"] == "ragsite/docs"
    second(tenant)
    found = client.post("/v1/chat/completions", json=body)
    assert (found.status_code, found.json()["error"]["code"]) == (400, "model_required")


def test_the_raw_model_answers_from_all_collections(ai: openai.OpenAI, guide: Collection, tenant: Tenant) -> None:
    second(tenant)
    found = ask(ai, model="extractive")
    assert found.model == "extractive" and "02:30" in found.choices[0].message.content


USER = {"role": "user", "content": "x"}
TOOL = {"type": "function", "function": {"name": "f"}}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "7"}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "ragsite/nowhere"}, 404, "model_not_found", "model"),
        ({"model": "gpt-9"}, 404, "model_not_found", "model"),
        ({"n": 2}, 400, "unsupported_value", "n"),
        ({"n": 0}, 400, "unsupported_value", "n"),
        ({"n": -1}, 400, "unsupported_value", "n"),
        ({"n": True}, 400, "invalid", "n"),
        ({"n": "one"}, 400, "invalid", "n"),
        ({"messages": []}, 400, "invalid", "messages"),
        ({"messages": "hello"}, 400, "invalid", "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "invalid", "messages"),
        ({"messages": [USER | {"content": ""}]}, 400, "invalid", "messages.0.content"),
        ({"messages": [USER | {"content": 5}]}, 400, "invalid", "messages.0.content"),
        ({"messages": [USER | {"content": [{"type": "image_url"}]}]}, 400, "invalid", "messages.0.content.0"),
        ({"messages": [USER | {"content": "a\x00"}]}, 400, "invalid", "messages.0.content"),
        ({"temperature": "hot"}, 400, "invalid", "temperature"),
        ({"temperature": -0.1}, 400, "invalid", "temperature"),
        ({"temperature": 2.1}, 400, "invalid", "temperature"),
        ({"temperature": True}, 400, "invalid", "temperature"),
        ({"temperature": 10**400}, 400, "invalid", "temperature"),
        ({"stream": "yes"}, 400, "invalid", "stream"),
        ({"max_tokens": 0}, 400, "invalid", "max_tokens"),
        ({"max_tokens": -1}, 400, "invalid", "max_tokens"),
        ({"max_tokens": 1.5}, 400, "invalid", "max_tokens"),
        ({"max_tokens": "5"}, 400, "invalid", "max_tokens"),
        ({"max_completion_tokens": 0}, 400, "invalid", "max_completion_tokens"),
        ({"stop": 5}, 400, "invalid", "stop"),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "invalid", "stop"),
        ({"stop": [1]}, 400, "invalid", "stop"),
        ({"stop": ["a\x00"]}, 400, "invalid", "stop"),
        ({"metadata": []}, 400, "invalid", "metadata"),
        ({"function_call": {"name": "f"}}, 400, "unsupported_value", "function_call"),
        ({"tool_choice": "required"}, 400, "invalid", "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "always"}, 400, "invalid", "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, 400, "invalid", "tool_choice"),
        ({"tools": [TOOL], "tool_choice": named("g")}, 400, "invalid", "tool_choice.function.name"),
        ({"tools": {}}, 400, "invalid", "tools"),
        ({"tools": [TOOL] * 129}, 400, "invalid", "tools"),
        ({"tools": [TOOL, {"type": "web_search"}]}, 400, "invalid", "tools.1"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, 400, "invalid", "tools.0.function.name"),
        ({"parallel_tool_calls": "yes"}, 400, "invalid", "parallel_tool_calls"),
        ({"messages": [USER, CALLED | {"tool_calls": [{"id": "a"}]}]}, 400, "invalid", "messages.1.tool_calls.0"),
        ({"messages": [USER, RESULT]}, 400, "invalid", "messages.1.tool_call_id"),
        ({"messages": [USER, CALLED, RESULT | {"content": 5}]}, 400, "invalid", "messages.2.content"),
        ({"messages": [USER, CALLED, RESULT | {"content": "\x00"}]}, 400, "invalid", "messages.2.content"),
        ({"logprobs": True}, 400, "unsupported_value", "logprobs"),
        ({"collections": ["nowhere"]}, 404, "unknown_collection", None),
        ({"filters": {"a": 1}}, 400, "invalid", "filters.a"),
        ({"response_format": {"type": "json_schema"}}, 400, "invalid", "response_format.json_schema"),
    ],
)
def test_a_bad_request_has_openais_shape(
    client: httpx.Client,
    collection: Collection,
    fields: dict[str, Any],
    status: int,
    code: str,
    param: str | None,
) -> None:
    found = client.post("/v1/chat/completions", json={"model": "ragsite/docs", "messages": [USER]} | fields)
    assert found.status_code == status, found.text
    error = found.json()["error"]
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    assert error["message"]


def test_a_key_is_needed(server: str, collection: Collection) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server}/v1", api_key="rs_wrong", max_retries=0).models.list()


def test_embeddings_come_as_numbers_and_as_base64(ai: openai.OpenAI, collection: Collection) -> None:
    model = collection.space.model
    packed = ai.embeddings.create(model=model, input=["one text", "another"])  # the client asks for base64
    plain = ai.embeddings.create(model=model, input="one text", encoding_format="float")
    assert [item.index for item in packed.data] == [0, 1]
    assert np.allclose(packed.data[0].embedding, plain.data[0].embedding)
    assert len(plain.data[0].embedding) == collection.space.dimensions
    assert packed.usage.prompt_tokens == 3


def test_an_encoding_that_is_null_is_the_default_one(client: httpx.Client, collection: Collection) -> None:
    asked = {"model": collection.space.model, "input": "a text", "encoding_format": None}
    found = client.post("/v1/embeddings", json=asked)
    assert found.status_code == 200 and isinstance(found.json()["data"][0]["embedding"], list)


def test_of_one_model_in_several_sizes_the_dimensions_choose(ai: openai.OpenAI, collection: Collection) -> None:
    model, size = collection.space.model, collection.space.dimensions
    spaces.create(slug=f"small-{uuid4().hex[:8]}", backend=collection.space.backend, model=model, dimensions=16)
    for asked, got in ((None, size), (16, 16), (size, size)):
        wanted = {} if asked is None else {"dimensions": asked}
        found = ai.embeddings.create(model=model, input="one text", encoding_format="float", **wanted)
        assert len(found.data[0].embedding) == got
    with pytest.raises(openai.BadRequestError, match="16 or 384 dimensions"):
        ai.embeddings.create(model=model, input="one text", dimensions=17)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"input": ""}, 400),
        ({"input": []}, 400),
        ({"input": ["a", ""]}, 400),
        ({"input": [[1, 2]]}, 400),
        ({"input": "x", "dimensions": 7}, 400),
        ({"input": "x", "encoding_format": "int8"}, 400),
        ({"input": "x", "model": "nothing"}, 404),
        ({"input": "a\x00"}, 400),
    ],
)
def test_bad_embedding_input_is_refused(
    client: httpx.Client, collection: Collection, fields: dict[str, Any], status: int
) -> None:
    found = client.post("/v1/embeddings", json={"model": collection.space.model} | fields)
    assert found.status_code == status and found.json()["error"]["message"]
