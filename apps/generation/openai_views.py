"""OpenAI's protocol under `/v1/`: a collection is a model, its answers carry citations.

Citations stand in the message as `annotations` (url_citation, one per marker in the text) and, whole, as
`citations`; in a stream both come with the last content-free delta.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiExample, OpenApiTypes, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.problems import Problem, invalid, openai_document
from apps.access.throttling import meter_of
from apps.access.views import TenantView
from apps.documents.embedding import EmbeddingError
from apps.documents.spaces import embedder_for

from . import answers, openai_models, prompts, sse
from .answers import Prepared
from .markers import MARKER
from .openai_serializers import (
    ChatSerializer,
    EmbeddingsSerializer,
    ModelListSerializer,
    ModelSerializer,
)
from .serializers import answer_request
from .types import Usage

_CHAT = {
    "model": "ragsite/ragsite-docs",
    "messages": [{"role": "user", "content": "When is an old version used?"}],
}


class OpenAIView(TenantView):
    scope_needed = "read"
    query_names = None


class ModelList(OpenAIView):
    @extend_schema(operation_id="v1_models_list", responses=ModelListSerializer)
    def get(self, request: Request) -> Response:
        """List the models: one per collection, the language model, the embedding models."""
        models = openai_models.listed(tenant_id=self.caller.tenant_id)
        return Response({"object": "list", "data": models})


class ModelDetail(OpenAIView):
    @extend_schema(responses=ModelSerializer)
    def get(self, request: Request, name: str) -> Response:
        """Get a model."""
        for model in openai_models.listed(tenant_id=self.caller.tenant_id):
            if model["id"] == name:
                return Response(model)
        raise invalid("/model", f"The model {name!r} does not exist.", status=404, code="model_not_found")


class ChatCompletions(OpenAIView):
    @extend_schema(
        request=ChatSerializer,
        responses={
            (200, "application/json"): OpenApiTypes.OBJECT,
            (200, "text/event-stream"): OpenApiTypes.STR,
        },
        examples=[OpenApiExample("a question", _CHAT, request_only=True)],
    )
    def post(self, request: Request) -> HttpResponseBase:
        """Answer the last user message, in the light of those before it, from the collection that the model names."""
        values = self.validated(ChatSerializer)
        tenant_id = self.caller.tenant_id
        chosen = openai_models.choose(
            tenant_id=tenant_id, model=values.get("model"), collections=values.get("collections")
        )
        asked = answer_request(values | {"collections": chosen.collections, "model": chosen.model})
        meter = meter_of(self.caller)
        model = values.get("model") or openai_models.PREFIX + (chosen.collections or ("",))[0]
        before = values["before"]
        if not values.get("stream"):
            final = answers.answer(tenant_id=tenant_id, request=asked, before=before, meter=meter)
            return Response(completion(final, model, json=asked.response_format is not None))
        prepared = answers.prepare(tenant_id=tenant_id, request=asked, before=before, meter=meter)
        with_usage = (values.get("stream_options") or {}).get("include_usage", False)
        return sse.response(_chunks(prepared, model, with_usage=with_usage))

    def handle_exception(self, exc: Exception) -> Response:
        """What is wrong with the question is wrong with the messages here."""
        for error in exc.errors if isinstance(exc, Problem) else ():
            if error["pointer"] == "/question":
                error["pointer"] = "/messages"
        return super().handle_exception(exc)


class Embeddings(OpenAIView):
    @extend_schema(
        request=EmbeddingsSerializer,
        responses=OpenApiTypes.OBJECT,
        examples=[OpenApiExample("a text", {"model": "all-MiniLM-L6-v2", "input": "a text"}, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        """Embed texts with the model that the documents are embedded with."""
        values = self.validated(EmbeddingsSerializer)
        with self.scope():
            space = openai_models.embedding_space(values["model"], dimensions=values.get("dimensions"))
        embedder, meter = embedder_for(space), meter_of(self.caller)
        try:
            tokens = sum(embedder.count(values["input"]))
            if meter:
                meter.check(tokens)
            vectors = embedder.embed(values["input"]).astype("<f4")
            if meter:
                meter.count(tokens)
        except EmbeddingError as error:
            raise Problem(503, "embedding_unavailable", f"The texts cannot be embedded now: {error.code}.")
        packed = values["encoding_format"] == "base64"
        rows = [base64.b64encode(row.tobytes()).decode() if packed else row.tolist() for row in vectors]
        return Response(
            {
                "object": "list",
                "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
                "model": space.model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )


def completion(final: dict[str, Any], model: str, *, json: bool = False) -> dict[str, Any]:
    """A final answer as OpenAI's chat.completion. json: was it asked for? That the sources do not answer is a refusal
    then, as OpenAI's clients read it."""
    calls = final.get("calls")
    content = "refusal" if json and prompts.is_abstention(final["answer"]) else "content"
    message = {"role": "assistant", "content": None, "refusal": None, content: final["answer"]} | _sources(final)
    if calls:
        message |= {"content": final["answer"] or None, "tool_calls": calls}
    choice = {"index": 0, "message": message, "finish_reason": final["finish_reason"], "logprobs": None}
    return {
        "id": f"chatcmpl-{final['id']}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": _usage(final),
    }


def url_citations(final: dict[str, Any]) -> list[dict[str, Any]]:
    """One url_citation per marker in the answer's text; indexes are of the marker, in code points."""
    by_marker = {citation["marker"]: citation for citation in final["citations"]}
    found = []
    for marker in MARKER.finditer(final["answer"]):
        citation = by_marker[int(marker.group(1))]
        place = {"start_index": marker.start(), "end_index": marker.end()}
        source = {"url": citation["source_uri"], "title": citation["title"]}
        found.append({"type": "url_citation", "url_citation": place | source})
    return found


def _sources(final: dict[str, Any]) -> dict[str, Any]:
    flaws = {name: final[name] for name in ("partial", "degraded") if final.get(name)}
    return {"annotations": url_citations(final), "citations": final["citations"]} | flaws


async def _chunks(prepared: Prepared, model: str, *, with_usage: bool) -> AsyncGenerator[str, None]:
    """OpenAI's chat.completion.chunk stream of an answer's events. It begins with the answer's first words, because an
    answer that is given again has the id of the stored one."""
    head = {
        "id": f"chatcmpl-{prepared.id}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }

    def chunk(delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return _data(head | {"choices": [choice]} | ({"usage": None} if with_usage else {}))

    begun = False
    async with aclosing(answers.events(prepared)) as events:
        async for event in events:
            if event.name == "error":
                problem = Problem(event.data["status"], event.data["code"], event.data["detail"])
                yield _data(openai_document(problem))
                return
            if event.name not in ("message", "final_answer"):
                continue
            if not begun:
                begun = True
                if event.again:
                    head["id"] = f"chatcmpl-{event.again}"
                yield chunk({"role": "assistant", "content": None if event.data.get("calls") else ""})
            if event.name == "message":
                refused = prepared.task.response_format is not None and prompts.is_abstention(event.data["delta"])
                yield chunk({"refusal" if refused else "content": event.data["delta"]})
            else:
                for index, call in enumerate(event.data.get("calls", ())):
                    yield chunk({"tool_calls": [{"index": index} | call]})
                yield chunk(_sources(event.data), event.data["finish_reason"])
                if with_usage:
                    yield _data(head | {"choices": [], "usage": _usage(event.data)})
    yield "data: [DONE]\n\n"


def _data(body: dict[str, Any]) -> str:
    return f"data: {sse.dumps(body)}\n\n"


def _usage(final: dict[str, Any]) -> dict[str, Any]:
    """Of an answer that is given again no token was read anew: its prompt counts as cached."""
    usage = final["usage"] or Usage(0, 0).as_json()
    if final["cached"]:
        usage = usage | {"prompt_tokens_details": {"cached_tokens": usage["prompt_tokens"]}}
    return usage
