"""Bodies and responses of `/api/v1/evaluations`. Field names are the HTTP contract."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.access.serializers import FlagField, IdField, StrictSerializer, TextField, WholeField
from apps.retrieval.serializers import MAX_QUERY

from .judge import MAX_K, MODES
from .models import EvaluationRun
from .stored import MAX_QUERIES

MAX_LABELS = 1_000


class LabelSerializer(StrictSerializer):
    """One of `document_id` and `source_uri`."""

    document_id = IdField(required=False)
    source_uri = TextField(required=False, max_length=2_000)
    grade = WholeField(min_value=0, max_value=100, default=1, help_text="0: judged, and not relevant")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("document_id" in attrs) == ("source_uri" in attrs):
            raise serializers.ValidationError("Name the document by one of document_id and source_uri.")
        return attrs


class LabelledQuerySerializer(StrictSerializer):
    query = TextField(max_length=MAX_QUERY)
    answer = TextField(required=False, max_length=MAX_QUERY, help_text="a text that one of the first k chunks holds")
    relevant = serializers.ListField(child=LabelSerializer(), min_length=1, max_length=MAX_LABELS)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        labels = attrs["relevant"]
        names = [str(label.get("document_id") or label["source_uri"]) for label in labels]
        if len(set(names)) < len(names):
            raise serializers.ValidationError({"relevant": ["A document is named twice."]})
        if all(label["grade"] == 0 for label in labels):
            raise serializers.ValidationError({"relevant": ["At least one grade must be above 0."]})
        return attrs


class SetCreateSerializer(StrictSerializer):
    """`POST /evaluations/sets`: one of `queries` and `from_feedback`."""

    name = TextField(max_length=200)
    description = TextField(required=False, max_length=2_000, allow_blank=True)
    collection = TextField(max_length=64)
    queries = serializers.ListField(
        child=LabelledQuerySerializer(), required=False, min_length=1, max_length=MAX_QUERIES
    )
    from_feedback = FlagField(
        default=False, help_text="questions whose answers were voted up; what these cite is relevant"
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("queries" in attrs) == attrs["from_feedback"]:
            raise serializers.ValidationError({"queries": ["Give either queries or from_feedback."]})
        return attrs


class LastRunSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=EvaluationRun.State.choices)
    k = serializers.IntegerField()
    metrics = serializers.DictField(child=serializers.DictField(child=serializers.FloatField()))


class SetSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField()
    collection = serializers.CharField(help_text="slug")
    queries = serializers.IntegerField()
    last_run = LastRunSerializer(allow_null=True)
    created_at = serializers.DateTimeField()


class ShownLabelSerializer(serializers.Serializer):
    document_id = serializers.UUIDField(allow_null=True)
    source_uri = serializers.CharField(allow_null=True)
    grade = serializers.IntegerField()


class ShownQuerySerializer(serializers.Serializer):
    query = serializers.CharField()
    answer = serializers.CharField(allow_null=True)
    relevant = ShownLabelSerializer(many=True)


class SetDetailSerializer(SetSerializer):
    labelled = ShownQuerySerializer(many=True, help_text="the queries")


class RunCreateSerializer(StrictSerializer):
    """`POST /evaluations/runs`."""

    set = IdField()
    modes = serializers.ListField(
        child=serializers.ChoiceField(choices=MODES), min_length=1, max_length=len(MODES), default=list(MODES)
    )
    k = WholeField(min_value=1, max_value=MAX_K, default=10)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        return attrs | {"modes": list(dict.fromkeys(attrs["modes"]))}


class RunSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    set = serializers.UUIDField()
    collection = serializers.CharField()
    modes = serializers.ListField(child=serializers.CharField())
    k = serializers.IntegerField()
    state = serializers.ChoiceField(choices=EvaluationRun.State.choices)
    searches = serializers.IntegerField(help_text="queries times modes")
    metrics = serializers.DictField(
        child=serializers.DictField(child=serializers.FloatField()),
        help_text="of each mode the means: P@5, P@k, recall@5, recall@k, MRR@k, nDCG@k; answer@k where there is one",
    )
    error = serializers.DictField(allow_null=True)
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class ResultOfModeSerializer(serializers.Serializer):
    metrics = serializers.DictField(child=serializers.FloatField())
    ranks = serializers.ListField(
        child=serializers.IntegerField(), help_text="places, from 1, of relevant documents among the first k"
    )
    milliseconds = serializers.FloatField()


class QueryResultSerializer(serializers.Serializer):
    query = serializers.CharField()
    modes = serializers.DictField(child=ResultOfModeSerializer())


class RunDetailSerializer(RunSerializer):
    results = QueryResultSerializer(many=True, help_text="of each query, so far; of a set's last ten runs")


class SpaceCheckSerializer(serializers.Serializer):
    """The two spaces of a collection side by side; what is told of each is under its slug."""

    collection = serializers.CharField()
    serving = serializers.CharField()
    second = serializers.CharField()
    chunks = serializers.IntegerField(help_text="live, and kept for the past")
    embedded = serializers.IntegerField(help_text="of these, how many have a vector in the second")
    queries = serializers.IntegerField(help_text="asked of both: sentences of chunks, and labelled queries")
    agreement = serializers.FloatField(
        allow_null=True, help_text="of what one finds, how much the other finds as well, 0 to 1"
    )
    known_items = serializers.DictField(
        child=serializers.FloatField(allow_null=True), help_text="how often a sentence finds its own chunk, 0 to 1"
    )
    milliseconds = serializers.DictField(child=serializers.FloatField(allow_null=True), help_text="of a search, median")
    labelled = serializers.IntegerField(help_text="queries of the collection's labelled sets")
    metrics = serializers.DictField(
        child=serializers.DictField(child=serializers.DictField(child=serializers.FloatField())),
        help_text="of each mode and space the means, where there are labelled queries",
    )
