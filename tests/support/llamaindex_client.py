"""What LlamaIndex makes of /v1, as JSON on stdout; runs in requirements-llamaindex.txt's environment.

Arguments: the base URL, an API key, the name of an embedding model.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

QUESTION = "When do backups run every night?"


def weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}."


def main(url: str, key: str, embedding_model: str) -> dict[str, Any]:
    """Chat, streams, tools, errors and embeddings, each both ways."""
    common: dict[str, Any] = {"api_base": url, "api_key": key, "is_chat_model": True, "max_retries": 0}
    llm = OpenAILike(model="ragsite/docs", is_function_calling_model=True, context_window=8_000, **common)
    message = [ChatMessage(role="user", content=QUESTION)]
    embedder = OpenAILikeEmbedding(model_name=embedding_model, api_base=url, api_key=key, max_retries=0)
    called = llm.chat_with_tools(
        [FunctionTool.from_defaults(fn=weather, name="weather")], user_msg=QUESTION + " script:call"
    )
    try:
        refused = str(OpenAILike(model="ragsite/none", **common).complete("x"))
    except Exception as error:
        refused = type(error).__name__
    return {
        "complete": llm.complete(QUESTION).text,
        "chat": llm.chat(message).message.content,
        "stream": [piece.delta for piece in llm.stream_chat(message)],
        "async": asyncio.run(_async(llm, message)),
        "calls": [(call.tool_name, call.tool_kwargs) for call in llm.get_tool_calls_from_response(called)],
        "refused": refused,
        "query": embedder.get_query_embedding("one text"),
        "texts": embedder.get_text_embedding_batch(["one text", "another"]),
    }


async def _async(llm: OpenAILike, message: list[ChatMessage]) -> list[str | None]:
    whole = (await llm.achat(message)).message.content
    return [whole, "".join([piece.delta or "" async for piece in await llm.astream_chat(message)])]


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
