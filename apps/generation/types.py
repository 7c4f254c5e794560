"""What an answer is asked with and made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from apps.retrieval.types import Hit

from .tools import Tools

#: texts -> float32 [len(texts), dimensions] with unit L2 norm; raises EmbeddingError.
Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Options:
    """How the model is to write. None leaves a choice to the server. max_tokens bounds the answer."""

    max_tokens: int = 1024
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A question about some or (None) all collections of a tenant. k: passages to find, 1..200. rerank: None where a
    reranker is configured. filters as they were sent; these and the following are what a search takes.
    response_format: as structured.py's `asked` gives it; None for text. conversation: the id of the one it goes on.
    attribution: `inline`, the model cites while it writes; `after`, its sentences are cited when they are written;
    `model`, it is also asked for the sources of those that words and embedding find none for.
    min_grounded: the share of supported sentences, 0..1, below which a model's answer is withheld.
    user, metadata: what a client says of itself, kept with the answer and not told to a model.
    """

    question: str
    collections: tuple[str, ...] | None = None
    k: int = 8
    model: str = "auto"
    options: Options = Options()
    rerank: bool | None = None
    filters: Mapping[str, Any] | None = None
    consistency: str = "bounded"
    min_versions: tuple[tuple[UUID, int], ...] = ()
    as_of: datetime | None = None
    partial: bool = False
    response_format: Mapping[str, Any] | None = None
    user: str = ""
    metadata: Mapping[str, str] | None = None
    tools: Tools | None = None
    conversation: UUID | None = None
    attribution: str = "inline"
    min_grounded: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """What is stored with the answer, so that it can be replayed."""
        return {
            "question": self.question,
            "collections": None if self.collections is None else list(self.collections),
            "k": self.k,
            "model": self.model,
            "rerank": self.rerank,
            "max_tokens": self.options.max_tokens,
            "temperature": self.options.temperature,
            "top_p": self.options.top_p,
            "stop": list(self.options.stop),
            "seed": self.options.seed,
            "filters": None if self.filters is None else dict(self.filters),
            "consistency": self.consistency,
            "min_versions": {str(document_id): version for document_id, version in self.min_versions},
            "as_of": self.as_of and self.as_of.isoformat(),
            "partial": self.partial,
            "response_format": None if self.response_format is None else dict(self.response_format),
            "user": self.user,
            "metadata": None if self.metadata is None else dict(self.metadata),
            "tools": self.tools and self.tools.as_json(),
            "conversation": self.conversation and str(self.conversation),
            "attribution": self.attribution,
            "min_grounded": self.min_grounded,
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> AnswerRequest:
        """The request that `as_json` gave this for."""
        return cls(
            question=said["question"],
            collections=None if said["collections"] is None else tuple(said["collections"]),
            k=said["k"],
            model=said["model"],
            options=Options(
                max_tokens=said["max_tokens"],
                temperature=said["temperature"],
                top_p=said["top_p"],
                stop=tuple(said["stop"]),
                seed=said["seed"],
            ),
            rerank=said["rerank"],
            filters=said["filters"],
            consistency=said["consistency"],
            min_versions=tuple((UUID(document_id), version) for document_id, version in said["min_versions"].items()),
            as_of=said["as_of"] and datetime.fromisoformat(said["as_of"]),
            partial=said["partial"],
            response_format=said["response_format"],
            user=said["user"],
            metadata=said["metadata"],
            tools=said["tools"] and Tools.from_json(said["tools"]),
            conversation=said["conversation"] and UUID(said["conversation"]),
            attribution=said["attribution"],
            min_grounded=said["min_grounded"],
        )


@dataclass(frozen=True, slots=True)
class Passage:
    """A hit under the number by which the answer cites it."""

    marker: int
    hit: Hit


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer, said before in the same conversation. id, documents: of a stored answer, and all that
    it was made from."""

    question: str
    answer: str
    id: UUID | None = None
    documents: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """All that a backend may need to answer: messages for a model, passages and an embedder for quoting.

    question: as one would put it without what was said `before`. embed is None where there is nothing to quote from.
    response_format: of the answer, where it is to be JSON.
    """

    question: str
    passages: tuple[Passage, ...]
    messages: tuple[dict[str, Any], ...]
    options: Options = Options()
    embed: Embed | None = None
    response_format: Mapping[str, Any] | None = None
    before: tuple[Turn, ...] = ()
    attribution: str = "inline"
    tools: Tools | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written, as the server counts them, else as `estimate_tokens` does. cached_tokens: of those read,
    how many the server had read before."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )

    def as_json(self) -> dict[str, Any]:
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of what a backend writes; the last one may carry a server's usage, the reason for stopping (stop, length,
    tool_calls) and the tools that it calls.
    """

    text: str = ""
    usage: Usage | None = None
    finish_reason: str | None = None
    calls: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One event of an answer's stream: search_results, message, citation, final_answer or error. again: the id of the
    stored answer that a message is of, where it is given again."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    again: str | None = None
