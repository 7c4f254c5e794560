"""LangChain's and LlamaIndex's OpenAI classes work unchanged against /v1, and so does OpenAI's async client."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from apps.access import keys
from apps.access.models import Tenant
from apps.documents.models import Collection
from tests.support.fake_llm import FakeServer
from tests.support.processes import ROOT, Server

pytestmark = pytest.mark.usefixtures("guide")

LLAMAINDEX = ROOT / ".venv-llamaindex/bin/python"
QUESTION = "When do backups run every night?"
ANSWER = "Backups run every night at 02:30 UTC [1]."


@pytest.fixture
def langchain(llm_web: Server, api_key: str) -> Callable[..., ChatOpenAI]:
    def make(**fields: Any) -> ChatOpenAI:
        values = {"model": "ragsite/docs", "api_key": SecretStr(api_key), "max_retries": 0}
        return ChatOpenAI(base_url=f"{llm_web.url}/v1", **values | fields)

    return make


def test_openais_async_client(llm_web: Server, api_key: str, guide: Collection) -> None:
    async def both() -> None:
        async with openai.AsyncOpenAI(base_url=f"{llm_web.url}/v1", api_key=api_key, max_retries=0) as ai:
            message: Any = [{"role": "user", "content": QUESTION}]
            wholes = await asyncio.gather(
                *(
                    ai.chat.completions.create(model="ragsite/docs", messages=message, temperature=number / 10)
                    for number in range(1, 5)
                )
            )
            assert {whole.choices[0].message.content for whole in wholes} == {ANSWER}
            stream = await ai.chat.completions.create(model="ragsite/docs", messages=message, stream=True)
            assert "".join([piece.choices[0].delta.content or "" async for piece in stream]) == ANSWER
            assert "ragsite/docs" in [model.id async for model in ai.models.list()]
            vectors = await ai.embeddings.create(model=guide.space.model, input=["one text"])
            assert len(vectors.data[0].embedding) == guide.space.dimensions
            with pytest.raises(openai.NotFoundError):
                await ai.chat.completions.create(model="ragsite/none", messages=message)

    asyncio.run(both())


def test_langchain_chats(langchain: Callable[..., ChatOpenAI], llm: FakeServer) -> None:
    chat = langchain(temperature=0.3, max_completion_tokens=50, seed=3, stop=["END"], top_p=0.5)
    whole = chat.invoke(QUESTION)
    assert whole.content == ANSWER and whole.usage_metadata is not None
    assert (whole.usage_metadata["input_tokens"], whole.usage_metadata["output_tokens"]) == (11, 7)
    assert whole.response_metadata["finish_reason"] == "stop"
    sent = llm.requests[-1]
    assert (sent["temperature"], sent["max_tokens"], sent["seed"], sent["top_p"]) == (0.3, 50, 3, 0.5)
    assert sent["stop"] == ["END"]


def test_langchain_streams(langchain: Callable[..., ChatOpenAI]) -> None:
    pieces = list(langchain(stream_usage=True, temperature=0.3).stream(QUESTION))
    assert "".join(str(piece.content) for piece in pieces) == ANSWER and len(pieces) > 3
    told = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert [usage["total_tokens"] for usage in told] == [18]


def test_langchain_asks_without_waiting(langchain: Callable[..., ChatOpenAI]) -> None:
    async def both() -> tuple[Any, str]:
        chat = langchain()
        whole = await chat.ainvoke(QUESTION)
        return whole.content, "".join([str(piece.content) async for piece in chat.astream(QUESTION)])

    assert asyncio.run(both()) == (ANSWER, ANSWER)


def test_langchain_calls_tools(langchain: Callable[..., ChatOpenAI]) -> None:
    def weather(city: str) -> str:
        """The weather of a city."""
        return f"Sunny in {city}."

    chat = langchain().bind_tools([weather])
    asked = HumanMessage(f"{QUESTION} script:call")
    called = chat.invoke([asked])
    assert [(call["name"], call["args"]) for call in called.tool_calls] == [
        ("weather", {"city": "Rome [1]"}),
        ("time", {}),
    ]
    pieces: Any = None
    for piece in chat.stream([asked]):
        pieces = piece if pieces is None else pieces + piece
    assert [call["name"] for call in pieces.tool_calls] == ["weather", "time"]
    results = [ToolMessage("Sunny.", tool_call_id=str(call["id"])) for call in called.tool_calls]
    assert chat.invoke([asked, called, *results]).content == ANSWER


def test_langchain_gets_json(langchain: Callable[..., ChatOpenAI]) -> None:
    class Backups(BaseModel):
        when: str
        days: list[int]
        kept: str

    found = langchain().with_structured_output(Backups, method="json_schema").invoke(f"{QUESTION} script:json")
    assert isinstance(found, Backups) and found.days == [35] and found.when.endswith("[1].")


def test_langchain_hears_of_errors(langchain: Callable[..., ChatOpenAI], tenant: Tenant) -> None:
    with pytest.raises(openai.NotFoundError):
        langchain(model="ragsite/none").invoke(QUESTION)
    with pytest.raises(openai.AuthenticationError):
        langchain(api_key=SecretStr("rs_wrong")).invoke(QUESTION)
    secret = keys.create_key(tenant_id=tenant.id, name="poor", scopes=["read"], tokens_per_minute=1)[1]
    poor = langchain(api_key=SecretStr(secret), temperature=0.4)
    assert poor.invoke(QUESTION).content == ANSWER
    with pytest.raises(openai.RateLimitError):
        poor.invoke(QUESTION)


def test_langchain_embeds(llm_web: Server, api_key: str, guide: Collection) -> None:
    def embeddings(**fields: Any) -> OpenAIEmbeddings:
        values: dict[str, Any] = {"base_url": f"{llm_web.url}/v1", "api_key": SecretStr(api_key), "max_retries": 0}
        return OpenAIEmbeddings(model=guide.space.model, **values | fields)

    plain = embeddings(check_embedding_ctx_length=False)
    several, one = plain.embed_documents(["one text", "another"]), plain.embed_query("one text")
    assert len(several) == 2 and np.allclose(several[0], one) and len(one) == guide.space.dimensions
    assert np.allclose(asyncio.run(plain.aembed_query("one text")), one)
    # With the check it sends tokens of OpenAI's models, which other models cannot read.
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length"):
        openai.OpenAI(base_url=f"{llm_web.url}/v1", api_key=api_key, max_retries=0).embeddings.create(
            model=guide.space.model, input=[[1820, 2288]]
        )


def test_llamaindex(llm_web: Server, api_key: str, guide: Collection) -> None:
    if not LLAMAINDEX.exists():
        pytest.skip("make test makes .venv-llamaindex, and it is not there")
    arguments = [f"{llm_web.url}/v1", api_key, guide.space.model]
    done = subprocess.run(
        [LLAMAINDEX, ROOT / "tests/support/llamaindex_client.py", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["complete"] == found["chat"] == ANSWER
    assert "".join(found["stream"]) == ANSWER and found["async"] == [ANSWER, ANSWER]
    assert found["calls"][0] == ["weather", {"city": "Rome [1]"}]
    assert found["refused"] == "NotFoundError"
    assert np.allclose(found["texts"][0], found["query"]) and len(found["query"]) == guide.space.dimensions
