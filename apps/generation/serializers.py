"""Request and response of `/api/v1/answers`. Field names are the HTTP contract."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import OpenApiTypes, extend_schema_field
from rest_framework import serializers

from apps.access.serializers import FlagField, IdField, NumberField, StrictSerializer, TextField, WholeField
from apps.retrieval.serializers import MAX_QUERY, PartialSerializer, WhenMixin

from . import structured
from .models import Feedback, LowAnswer, Query
from .types import AnswerRequest, Options

DEFAULT_K = 8
MAX_TOKENS = 1_000_000


def slugs_field() -> serializers.ListField:
    return serializers.ListField(
        child=TextField(max_length=64), required=False, allow_null=True, min_length=1, max_length=100
    )


def attribution_field() -> serializers.ChoiceField:
    return serializers.ChoiceField(
        choices=["inline", "after", "model"],
        required=False,
        allow_null=True,
        help_text="whether the model cites while it writes (the default), or its sentences are cited when written: by "
        "words and embedding, or also by the model itself where these find nothing",
    )


def min_grounded_field() -> NumberField:
    return NumberField(
        min_value=0,
        max_value=1,
        required=False,
        allow_null=True,
        help_text="withhold a model's answer of whose sentences a smaller share is supported (0, the default: none)",
    )


@extend_schema_field(OpenApiTypes.OBJECT)
class ResponseFormatField(serializers.Field):
    """OpenAI's `response_format`, or a JSON schema alone."""

    def to_internal_value(self, data: Any) -> Any:
        return structured.asked(data)

    def to_representation(self, value: Any) -> Any:
        return value


class AnswerRequestSerializer(WhenMixin, StrictSerializer):
    question = TextField(max_length=MAX_QUERY)
    collections = slugs_field()
    k = WholeField(min_value=1, max_value=200, default=DEFAULT_K)
    model = TextField(default="auto", max_length=200, help_text="auto, fast, large, extractive, or a model's own name")
    stream = FlagField(default=False)
    rerank = FlagField(
        required=False, allow_null=True, help_text="of the passages; by default where a reranker is configured"
    )
    max_tokens = WholeField(min_value=1, max_value=MAX_TOKENS, required=False, allow_null=True)
    temperature = NumberField(min_value=0, max_value=2, required=False, allow_null=True)
    response_format = ResponseFormatField(
        required=False, allow_null=True, help_text="a JSON schema that the answer is to follow, or as OpenAI's"
    )
    conversation = IdField(required=False, allow_null=True, help_text="the one that the question goes on")
    attribution = attribution_field()
    min_grounded = min_grounded_field()


class QueryRequestSerializer(AnswerRequestSerializer):
    """`POST /queries`."""

    stream = None  # type: ignore[assignment]  # its events are had by GET
    priority = serializers.ChoiceField(choices=["urgent", "normal", "low"], default="normal")


class ReplaySerializer(StrictSerializer):
    """`POST /answers/{id}/replay`; the body may be left out."""

    model = TextField(required=False, allow_null=True, max_length=200, help_text="by default what was asked for")


class FeedbackCreateSerializer(StrictSerializer):
    """`POST /answers/{id}/feedback`."""

    rating = serializers.ChoiceField(choices=Feedback.Rating.choices)
    comment = TextField(required=False, allow_blank=True, max_length=4_000, default="")
    tags = serializers.ListField(child=TextField(max_length=50), required=False, max_length=20, default=list)


class FeedbackSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    answer_id = serializers.UUIDField()
    rating = serializers.ChoiceField(choices=Feedback.Rating.choices)
    comment = serializers.CharField()
    tags = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField(help_text="or when it was changed last")


def answer_request(values: dict[str, Any]) -> AnswerRequest:
    """What an AnswerRequestSerializer or a ChatSerializer validated, as the service takes it."""
    slugs = values.get("collections")
    return AnswerRequest(
        question=values["question"],
        collections=tuple(slugs) if slugs is not None else None,
        k=values.get("k", DEFAULT_K),
        model=values.get("model") or "auto",
        rerank=values.get("rerank"),
        filters=values.get("filters"),
        consistency=values.get("consistency") or "bounded",
        min_versions=values.get("min_versions") or (),
        as_of=values.get("as_of"),
        partial=values.get("partial") or False,
        response_format=values.get("response_format"),
        user=values.get("user") or "",
        metadata=values.get("metadata"),
        tools=values.get("tool_use"),
        conversation=values.get("conversation"),
        attribution=values.get("attribution") or "inline",
        min_grounded=values.get("min_grounded") or 0.0,
        options=Options(
            max_tokens=values.get("max_tokens") or min(1024, settings.LLM_CONTEXT_TOKENS // 4),
            temperature=values.get("temperature"),
            top_p=values.get("top_p"),
            stop=tuple(values.get("stop") or ()),
            seed=values.get("seed"),
        ),
    )


class CitationSerializer(serializers.Serializer):
    marker = serializers.IntegerField(help_text="the n of [n] in the answer")
    chunk_id = serializers.UUIDField()
    document_id = serializers.UUIDField()
    version = serializers.IntegerField()
    revision = serializers.IntegerField(required=False, help_text="how often the version had been reindexed")
    start = serializers.IntegerField(help_text="code points of the version's text")
    end = serializers.IntegerField()
    quote = serializers.CharField()
    sha256 = serializers.CharField(help_text="hex SHA-256 of the quote's UTF-8")
    source_uri = serializers.CharField()
    title = serializers.CharField()
    heading_path = serializers.ListField(child=serializers.CharField(), help_text="the headings above it")
    page = serializers.IntegerField(allow_null=True, help_text="from 1; null where the text has no pages")


class SentenceSerializer(serializers.Serializer):
    text = serializers.CharField()
    supported = serializers.BooleanField()
    citations = serializers.ListField(child=serializers.IntegerField(), help_text="markers")


class PromptDetailsSerializer(serializers.Serializer):
    cached_tokens = serializers.IntegerField(help_text="that the model's server had read before, where it tells")


class UsageSerializer(serializers.Serializer):
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()
    prompt_tokens_details = PromptDetailsSerializer()


class DifferenceSerializer(serializers.Serializer):
    same = serializers.BooleanField()
    answer_diff = serializers.CharField(help_text="a unified diff, a sentence to the line; empty for the same text")
    citations_changed = serializers.BooleanField()


class AnswerSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    answer = serializers.CharField()
    citations = CitationSerializer(many=True)
    sentences = SentenceSerializer(many=True)
    grounded = serializers.FloatField(help_text="share of supported sentences")
    abstained = serializers.BooleanField(help_text="the sources do not answer the question")
    model = serializers.CharField()
    cached = serializers.BooleanField()
    degraded = serializers.ChoiceField(choices=["extractive", "cached"], allow_null=True)
    standalone_question = serializers.CharField(
        required=False, allow_null=True, help_text="in a conversation: the question as it was put to the search"
    )
    partial = PartialSerializer(  # type: ignore[assignment]
        required=False, allow_null=True, help_text="null when all shards were asked"
    )
    usage = UsageSerializer(allow_null=True)
    finish_reason = serializers.CharField()
    prompt_version = serializers.IntegerField(help_text="which prompt the model was given")
    timings = serializers.DictField(child=serializers.FloatField(), help_text="milliseconds")
    replay_of = serializers.UUIDField(required=False, help_text="of a replay: the answer before")
    difference = DifferenceSerializer(required=False, help_text="of a replay: from the answer before")


class ConversationCreateSerializer(StrictSerializer):
    """`POST /conversations`; the body may be left out."""

    title = TextField(required=False, allow_blank=True, max_length=200, default="")


class ConversationSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    title = serializers.CharField()
    created_at = serializers.DateTimeField()


class TurnSerializer(serializers.Serializer):
    id = serializers.UUIDField(help_text="of the answer")
    question = serializers.CharField()
    standalone_question = serializers.CharField(allow_null=True)
    answer = serializers.CharField()
    citations = CitationSerializer(many=True)
    created_at = serializers.DateTimeField()


class ConversationDetailSerializer(ConversationSerializer):
    turns = TurnSerializer(many=True, help_text="the last 50, oldest first")


class AcceptedQuerySerializer(serializers.Serializer):
    id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=Query.State.choices)


class QueryErrorSerializer(serializers.Serializer):
    code = serializers.CharField()
    detail = serializers.CharField()


class QuerySerializer(AcceptedQuerySerializer):
    question = serializers.CharField()
    priority = serializers.ChoiceField(choices=["urgent", "normal", "low"])
    attempts = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    answer = AnswerSerializer(required=False, help_text="when it is done")
    error = QueryErrorSerializer(required=False, help_text="of the last attempt, where that has failed")


class JudgedSerializer(serializers.Serializer):
    marker = serializers.IntegerField()
    verified = serializers.BooleanField()
    reason = serializers.ChoiceField(choices=["version_missing", "document_deleted", "text_differs"], required=False)


class VerificationSerializer(serializers.Serializer):
    verified = serializers.BooleanField()
    citations = JudgedSerializer(many=True)


class ReportSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    week = serializers.DateField(help_text="its Monday, UTC")
    answers = serializers.IntegerField(help_text="given in the week, replays left out")
    voted_down = serializers.IntegerField(help_text="answers, of whenever, that were voted down in the week")
    ungrounded = serializers.IntegerField(help_text="answers of which less than half is supported")
    abstained = serializers.IntegerField(help_text="questions that the sources did not answer")
    created_at = serializers.DateTimeField()


class LowAnswerSerializer(serializers.Serializer):
    answer_id = serializers.UUIDField()
    reasons = serializers.ListField(child=serializers.ChoiceField(choices=LowAnswer.Reason.choices))
    question = serializers.CharField()
    answer = serializers.CharField()
    grounded = serializers.FloatField()
    model = serializers.CharField()
    feedback = FeedbackSerializer(many=True)


class ReportDetailSerializer(ReportSerializer):
    low = LowAnswerSerializer(many=True, help_text="the worst 500 that are still there, the worst first")


class ExportedFeedbackSerializer(FeedbackSerializer):
    question = serializers.CharField()
    answer = serializers.CharField()
    citations = CitationSerializer(many=True)
    grounded = serializers.FloatField(help_text="share of supported sentences")
    abstained = serializers.BooleanField()
    model = serializers.CharField()
    prompt_version = serializers.IntegerField()
