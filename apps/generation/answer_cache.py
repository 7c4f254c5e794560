"""Answers given again to the same question about the same passages.

Redis keeps only the id of the answer, under a digest of the tenant, of all that was asked, of the model and of the
passages. The answer itself is read from Postgres, behind the wall, and its citations are proved again: an erased answer
is gone from here too (invariant I8), and losing Redis loses nothing. The passages are those that the search has found
just now, so that a change of any document among them makes another key.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import orjson
from django.core.serializers.json import DjangoJSONEncoder
from redis.exceptions import RedisError

from apps.access import tenancy
from apps.access.redis import redis_client
from apps.access.sql import execute
from apps.documents import erasure
from apps.retrieval.metrics import CACHE

from . import prompts
from .records import SourcesChanged, prove
from .types import AnswerRequest, Passage, Task

logger = logging.getLogger(__name__)

SECONDS = 24 * 3600
_KEPT = "SELECT result::text FROM generation_answer WHERE id = %(id)s AND question = %(question)s"


def key_of(*, tenant_id: UUID, request: AnswerRequest, task: Task, model: str) -> str | None:
    """What an answer is kept under; None where there is nothing to answer from, or the client wants variety."""
    if not task.passages or (task.options.temperature or 0) > 0:
        return None
    asked = replace(request, user="", metadata=None).as_json()
    said = [asked, prompts.VERSION, model, _before(task), sorted(map(_told, task.passages))]
    digest = hashlib.sha256(json.dumps(said, cls=DjangoJSONEncoder).encode()).hexdigest()
    return f"rs:answer:{tenant_id}:{digest}"


def key_of_any(*, tenant_id: UUID, task: Task) -> str:
    """Where the last answer of whichever model to this question about these passages is kept, however else it was
    asked."""
    said = [task.question, task.response_format, _before(task), sorted(map(_told, task.passages))]
    digest = hashlib.sha256(json.dumps(said, cls=DjangoJSONEncoder).encode()).hexdigest()
    return f"rs:answer-of-any:{tenant_id}:{digest}"


def _before(task: Task) -> list[tuple[str, str]]:
    return [(turn.question, turn.answer) for turn in task.before]


def _told(passage: Passage) -> tuple[Any, ...]:
    """What a citation tells of a passage, and who it is."""
    hit = passage.hit
    return str(hit.chunk_id), hit.version, hit.revision, hit.start, hit.end, hit.title, hit.source_uri


def lookup(
    *, tenant_id: UUID, key: str, question: str, task: Task, timings: dict[str, float], started: float
) -> dict[str, Any] | None:
    """The body of an answer to this question that still holds, with `cached` and timings of its own. started:
    time.perf_counter()."""
    found = _stored(tenant_id, key, question, task)
    CACHE.labels(cache="answer", outcome="hit" if found else "miss").inc()
    if found is None:
        return None
    took = round((time.perf_counter() - started) * 1000, 3)
    return found | {"cached": True, "timings": timings | {"total_ms": took}}


def _stored(tenant_id: UUID, key: str, question: str, task: Task) -> dict[str, Any] | None:
    try:
        found = cast(bytes | None, redis_client().get(key))
    except (RedisError, OSError) as error:
        logger.warning("answer cache unavailable: %s", error)
        return None
    if found is None:
        return None
    answer_id = found.decode()
    # Nothing is stored with them, so in one snapshot the documents need not be held.
    with tenancy.snapshot(tenant_id):
        kept = execute(_KEPT, {"id": answer_id, "question": question}).fetchone()
        if kept is None:
            return None
        if erasure.gone(passage.hit.document_id for passage in task.passages):
            return None
        result = orjson.loads(kept[0])
        try:
            prove(result["citations"])
        except SourcesChanged:
            return None
    return {"id": answer_id} | result


def keep(keys: Sequence[str], final: dict[str, Any]) -> None:
    """Keep a finished answer under each key, unless it is a makeshift: quoted because the model failed, of a part, cut,
    or none."""
    makeshift = final["degraded"] or final["partial"] or final["abstained"] or final["finish_reason"] != "stop"
    if makeshift or not final["citations"]:
        return
    try:
        keeping = redis_client().pipeline(transaction=False)
        for key in keys:
            keeping.set(key, final["id"], ex=SECONDS)
        keeping.execute()
    except (RedisError, OSError) as error:
        logger.warning("answer cache unavailable: %s", error)
