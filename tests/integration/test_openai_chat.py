"""/v1/chat/completions with a served model: usage, what a client says of itself, answers given again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from apps.access import tenancy
from apps.access.redis import redis_client
from apps.documents.models import Collection
from apps.generation.models import Answer
from tests.support.asking import GUIDE, ask
from tests.support.fake_llm import FakeServer
from tests.support.processes import Server

QUESTION = "When do backups run?"
NONE_CACHED = {"cached_tokens": 0}


@pytest.fixture
def ai(llm_web: Server, api_key: str, collection: Collection, ingest: Callable[..., Any]) -> Iterator[openai.OpenAI]:
    ingest(collection, GUIDE, source_uri="guide.md", title="Guide", media_type="text/markdown")
    with openai.OpenAI(base_url=f"{llm_web.url}/v1", api_key=api_key, max_retries=0) as client:
        yield client


def chat(ai: openai.OpenAI, question: str = QUESTION, **fields: Any) -> Any:
    values: dict[str, Any] = {"model": "ragsite/docs", "messages": [{"role": "user", "content": question}]}
    return ai.chat.completions.create(**(values | fields))


def streamed(ai: openai.OpenAI, question: str = QUESTION, **fields: Any) -> list[Any]:
    return list(chat(ai, question, stream=True, stream_options={"include_usage": True}, **fields))


def stored(completion_id: str, collection: Collection) -> Answer:
    with tenancy.scope(collection.tenant_id):
        return Answer.objects.get(id=completion_id.removeprefix("chatcmpl-"))


@pytest.mark.parametrize(("question", "cached"), [("Backups? script:reused", 4), ("Backups? script:normal", 0)])
def test_usage_tells_what_the_server_had_cached(ai: openai.OpenAI, question: str, cached: int) -> None:
    whole = chat(ai, question, temperature=0.1).usage
    assert (whole.prompt_tokens, whole.completion_tokens, whole.total_tokens) == (11, 7, 18)
    assert whole.prompt_tokens_details.cached_tokens == cached
    assert streamed(ai, question, temperature=0.1)[-1].usage == whole


def test_of_an_answer_given_again_all_was_cached(ai: openai.OpenAI, llm: FakeServer) -> None:
    first = chat(ai)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    asked = len(llm.requests)
    again, chunks = chat(ai), streamed(ai)
    assert len(llm.requests) == asked
    assert again.usage.prompt_tokens_details.cached_tokens == first.usage.prompt_tokens == 11
    assert chunks[-1].usage == again.usage


def test_a_completion_is_named_after_its_stored_answer(
    ai: openai.OpenAI, reader: httpx.Client, collection: Collection, llm: FakeServer
) -> None:
    first = streamed(ai)
    for found in (first, streamed(ai), [chat(ai)]):
        assert {each.id for each in found} == {first[0].id}
    assert stored(first[0].id, collection).answer == "Backups run every night at 02:30 UTC [1]."


def test_so_is_one_given_again_because_the_model_fails(
    ai: openai.OpenAI, reader: httpx.Client, llm: FakeServer
) -> None:
    first = ask(reader, QUESTION, temperature=0.2)
    llm.fails = "500"
    try:
        chunks = streamed(ai, temperature=0.3)
        whole = chat(ai, temperature=0.3)
    finally:
        llm.fails = ""
        for key in redis_client().scan_iter("breaker:*"):
            redis_client().delete(key)
    assert {chunk.id for chunk in chunks} == {f"chatcmpl-{first['id']}"}
    assert chunks[0].choices[0].delta.role == "assistant"
    degraded = [getattr(choice.delta, "degraded", None) for chunk in chunks for choice in chunk.choices]
    assert degraded == [*[None] * (len(degraded) - 1), "cached"], "with the sources"
    assert whole.choices[0].message.degraded == "cached"


def test_quotes_in_place_of_a_models_words_say_so(ai: openai.OpenAI) -> None:
    assert chat(ai, f"{QUESTION} script:401").choices[0].message.degraded == "extractive"
    assert not hasattr(chat(ai).choices[0].message, "degraded")


def test_a_chat_that_leaves_no_room_names_its_messages(ai: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "t", "description": "word " * 9_000}}
    with pytest.raises(openai.BadRequestError) as refused:
        chat(ai, tools=[tool])
    assert (refused.value.code, refused.value.param) == ("question_too_long", "messages")


def test_user_and_metadata_are_stored_with_the_answer_and_make_no_other_one(
    ai: openai.OpenAI, collection: Collection, llm: FakeServer
) -> None:
    found = chat(ai, user="ada", metadata={"trace": "7"})
    request = stored(found.id, collection).request
    assert (request["user"], request["metadata"]) == ("ada", {"trace": "7"})
    assert "ada" not in str(llm.requests[-1])
    assert chat(ai, user="bob").id == found.id


@pytest.mark.parametrize(
    ("metadata", "param"),
    [
        ({"k": 1}, "metadata.k"),
        ({"k": "a\x00"}, "metadata.k"),
        ({"k" * 65: "v"}, "metadata"),
        ({"k": "v" * 513}, "metadata.k"),
        ({str(number): "v" for number in range(17)}, "metadata"),
    ],
)
def test_metadata_is_bounded_as_openais_is(ai: openai.OpenAI, metadata: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(ai, metadata=metadata)
    assert refused.value.param == param
