"""Request and response of `/api/v1/search`. Field names are the HTTP contract."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.dateparse import parse_datetime
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.access.problems import invalid
from apps.access.serializers import FlagField, NumberField, StrictSerializer, TextField, WholeField

from .batch import MOST as MOST_QUERIES
from .expand import MOST

MAX_QUERY = 8_000


MAX_NAMED = 100  # documents in min_versions


@extend_schema_field({"type": "string", "format": "date-time"})
class MomentField(serializers.Field):
    """An RFC 3339 time with its zone."""

    def to_internal_value(self, data: Any) -> datetime:
        try:
            moment = parse_datetime(data) if isinstance(data, str) else None
        except ValueError:
            moment = None
        if moment is None:
            raise serializers.ValidationError('Must be a time as in "2026-01-31T12:00:00Z".')
        if timezone.is_naive(moment):
            detail = 'A time needs its zone, as in "2026-01-31T12:00:00Z".'
            raise invalid(f"/{self.field_name}", detail, status=422, code="zone_missing")
        return moment

    def to_representation(self, value: datetime) -> str:
        return value.isoformat()


@extend_schema_field({"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}})
class VersionsField(serializers.Field):
    """{document id: version}, as pairs."""

    versions = serializers.DictField(child=WholeField(min_value=1, max_value=2**63 - 1))

    def to_internal_value(self, data: Any) -> tuple[tuple[UUID, int], ...]:
        found = self.versions.run_validation(data)
        if len(found) > MAX_NAMED:
            raise serializers.ValidationError(f"At most {MAX_NAMED} documents.")
        return tuple((_document_id(name), version) for name, version in found.items())

    def to_representation(self, value: Any) -> dict[str, int]:
        return {str(document_id): version for document_id, version in value}


def _document_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise serializers.ValidationError({text: ["This is not a document's id."]}) from None


class WhenMixin(serializers.Serializer):
    """What searches and questions have in common: of which documents, how fresh, or of which time."""

    filters = serializers.DictField(
        required=False,
        help_text='conditions on documents, as in `{"metadata.year": {"$gte": 2020}}`; '
        '`{"document_id": ..., "version": 3}` asks one version of one document',
    )
    consistency = serializers.ChoiceField(
        choices=["eventual", "bounded", "strong"],
        default="bounded",
        allow_null=True,
        help_text="eventual: what is live; bounded: hits are at most the collection's window old; "
        "strong: all that was accepted before",
    )
    min_versions = VersionsField(
        required=False, allow_null=True, help_text="at least these versions, by document id: read what you have written"
    )
    as_of = MomentField(required=False, allow_null=True, help_text="ask the collections as they were then")
    partial = FlagField(  # type: ignore[assignment]  # DRF takes fields out of the class
        default=False, help_text="on a cluster: while a part of it is away, answer from the rest; 503 otherwise"
    )


class SearchSerializer(WhenMixin, StrictSerializer):
    query = TextField(max_length=MAX_QUERY)
    collections = serializers.ListField(child=TextField(max_length=64), required=False, min_length=1, max_length=100)
    k = WholeField(min_value=1, max_value=200, default=10)
    mode = serializers.ChoiceField(choices=["hybrid", "dense", "lexical"], default="hybrid")
    rerank = FlagField(default=False, help_text="a model that reads query and passage together orders the first ones")
    diversify = NumberField(
        min_value=0, max_value=1, default=0.0, help_text="how much being unlike the better results counts; 0 is off"
    )
    expand = WholeField(
        min_value=0, max_value=MOST, default=0, help_text="chunks before and after that come with each passage"
    )
    explain = FlagField(default=False, help_text="tell how the passages were found")


class BatchSerializer(StrictSerializer):
    queries: serializers.ListSerializer[Any] = serializers.ListSerializer(
        child=SearchSerializer(), min_length=1, max_length=MOST_QUERIES
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
    version_date = serializers.DateTimeField(
        allow_null=True, help_text="when its source says that the version was written, else when it was accepted"
    )


class StaleSerializer(serializers.Serializer):
    document_id = serializers.UUIDField()
    live_version = serializers.IntegerField(allow_null=True, help_text="what was searched; null where nothing is live")
    version = serializers.IntegerField(help_text="the newest that was accepted, be it pending or failed")


class RerankedSerializer(serializers.Serializer):
    model = serializers.CharField(help_text="its name; empty where only the server knows it")
    candidates = serializers.IntegerField(help_text="passages that it was given")
    error = serializers.CharField(
        allow_null=True, help_text="why the results are in fused order nevertheless; null when it ordered them"
    )


class PartialSerializer(serializers.Serializer):
    shards = serializers.IntegerField(help_text="how many there are")
    unavailable = serializers.IntegerField(help_text="how many of them could not be asked: their documents are missing")


class ResultSerializer(serializers.Serializer):
    results = HitSerializer(many=True)
    snapshot = serializers.DictField(child=serializers.IntegerField(), help_text="epoch of each collection searched")
    stale = StaleSerializer(
        many=True, help_text="documents of results that have a newer version, and others that should have been newer"
    )
    stale_more = serializers.IntegerField(help_text="how many more of these there are than are listed")
    partial = PartialSerializer(  # type: ignore[assignment]
        allow_null=True, help_text="null when all shards were asked"
    )
    cached = serializers.BooleanField()
    rerank = RerankedSerializer(allow_null=True, help_text="null unless asked for")
    timings = serializers.DictField(child=serializers.FloatField())
    explain = serializers.DictField(allow_null=True, help_text="null unless asked for")


class BatchResultSerializer(serializers.Serializer):
    results = ResultSerializer(many=True, help_text="of each query, in order")
