"""Request and response of `/api/v1/search`. Field names are the HTTP contract."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.access.serializers import StrictSerializer, TextField, WholeField, refuse_unbuilt

from .batch import MOST

MAX_QUERY = 8_000
#: Named by the contract, built by later work: refused by name rather than silently ignored.
NOT_YET = ("as_of", "min_versions", "rerank", "diversify", "expand", "explain")


class SearchSerializer(StrictSerializer):
    query = TextField(max_length=MAX_QUERY)
    collections = serializers.ListField(child=TextField(max_length=64), required=False, min_length=1, max_length=100)
    k = WholeField(min_value=1, max_value=200, default=10)
    mode = serializers.ChoiceField(choices=["hybrid", "dense", "lexical"], default="hybrid")
    filters = serializers.DictField(
        required=False, help_text='conditions on documents, as in `{"metadata.year": {"$gte": 2020}}`'
    )
    consistency = serializers.ChoiceField(choices=["eventual"], required=False)

    def to_internal_value(self, data: Any) -> Any:
        refuse_unbuilt(data, NOT_YET)
        return super().to_internal_value(data)


class BatchSerializer(StrictSerializer):
    queries: serializers.ListSerializer[Any] = serializers.ListSerializer(
        child=SearchSerializer(), min_length=1, max_length=MOST
    )


class HitSerializer(serializers.Serializer):
    chunk_id = serializers.UUIDField()
    document_id = serializers.UUIDField()
    version = serializers.IntegerField()
    revision = serializers.IntegerField(help_text="how often that version has been reindexed")
    collection = serializers.CharField()
    source_uri = serializers.CharField()
    title = serializers.CharField()
    heading_path = serializers.ListField(child=serializers.CharField())
    start = serializers.IntegerField()
    end = serializers.IntegerField()
    page = serializers.IntegerField(
        allow_null=True, help_text="where it starts, from 1; null where the text has no pages"
    )
    text = serializers.CharField()
    sha256 = serializers.CharField()
    score = serializers.FloatField()
    scores = serializers.DictField(child=serializers.FloatField(allow_null=True))
    metadata = serializers.DictField()
    fresh = serializers.BooleanField()


class StaleSerializer(serializers.Serializer):
    document_id = serializers.UUIDField()
    live_version = serializers.IntegerField()
    version = serializers.IntegerField()


class ResultSerializer(serializers.Serializer):
    results = HitSerializer(many=True)
    snapshot = serializers.DictField(child=serializers.IntegerField(), help_text="epoch of each collection searched")
    stale = StaleSerializer(many=True, help_text="documents among the results that have a newer, pending version")
    cached = serializers.BooleanField()
    timings = serializers.DictField(child=serializers.FloatField())


class BatchResultSerializer(serializers.Serializer):
    results = ResultSerializer(many=True, help_text="of each query, in order")
