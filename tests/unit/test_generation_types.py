"""What is stored of a request is enough to ask it again."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime
from uuid import UUID

from django.core.serializers.json import DjangoJSONEncoder

from apps.generation.tools import Tools
from apps.generation.types import AnswerRequest, Options


def test_a_stored_request_is_the_request() -> None:
    request = AnswerRequest(
        question="Why?",
        collections=("docs", "notes"),
        k=3,
        model="large-one",
        options=Options(max_tokens=7, temperature=0.5, top_p=0.25, stop=("\n", "."), seed=11),
        rerank=False,
        filters={"metadata.year": {"$gte": 2020}},
        consistency="strong",
        min_versions=((UUID(int=1), 2), (UUID(int=3), 4)),
        as_of=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        partial=True,
        response_format={"type": "json_object"},
        user="ada",
        metadata={"trace": "7"},
        tools=Tools(({"type": "function"},), "auto", False, ({"role": "tool", "content": "7"},)),
        conversation=UUID(int=5),
        attribution="after",
        min_grounded=0.5,
    )
    for of, plain in ((request, AnswerRequest("")), (request.options, Options())):
        untold = [each.name for each in fields(of) if getattr(of, each.name) == getattr(plain, each.name)]
        assert untold == [], "an example that leaves nothing out"
    stored = json.loads(json.dumps(request.as_json(), cls=DjangoJSONEncoder))
    assert AnswerRequest.from_json(stored) == request
    assert AnswerRequest.from_json(AnswerRequest("Why?").as_json()) == AnswerRequest("Why?")
