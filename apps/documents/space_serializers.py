"""Request bodies and responses of `/api/v1/spaces`."""

from __future__ import annotations

from rest_framework import serializers

from apps.access.models import SLUG
from apps.access.serializers import FlagField, StrictSerializer, TextField, WholeField

from .embedding import BACKENDS
from .models import EmbeddingSpace, SpaceBuild


class SpaceCreateSerializer(StrictSerializer):
    """`POST /spaces`."""

    slug = TextField(max_length=40, validators=[SLUG])
    backend = serializers.ChoiceField(choices=BACKENDS, required=False)
    model = TextField(max_length=200, required=False)
    dimensions = WholeField(
        min_value=1, max_value=4_000, required=False, help_text="fewer than the local model's cut its vectors"
    )
    metric = serializers.ChoiceField(choices=EmbeddingSpace.Metric.choices, required=False)
    storage = serializers.ChoiceField(choices=EmbeddingSpace.Storage.choices, required=False)
    index_method = serializers.ChoiceField(choices=EmbeddingSpace.Index.choices, required=False)
    binary = FlagField(required=False, help_text="index one bit for each dimension")


class SpaceCollectionsSerializer(StrictSerializer):
    """Which collections; all that it concerns, unless they are named."""

    collections = serializers.ListField(child=TextField(max_length=64), required=False, allow_empty=False)


class CanarySerializer(SpaceCollectionsSerializer):
    percent = serializers.FloatField(min_value=0, max_value=100)


class SpaceBuildSerializer(serializers.Serializer):
    state = serializers.ChoiceField(choices=SpaceBuild.State.choices)
    embedded = serializers.IntegerField(help_text="chunks that it has given a vector")
    error = serializers.JSONField(allow_null=True, help_text="{code, detail} of why it waits to be tried again")
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class SpaceCollectionSerializer(serializers.Serializer):
    slug = serializers.CharField()
    role = serializers.ChoiceField(choices=["serving", "second"])
    chunks = serializers.IntegerField(help_text="live chunks")
    canary_percent = serializers.FloatField(help_text="of the queries that it answers while it is the second")
    build = SpaceBuildSerializer(allow_null=True, help_text="the last one; null where none was needed")


class SpaceSerializer(serializers.Serializer):
    """An embedding space, and what the tenant's collections have to do with it."""

    id = serializers.UUIDField()
    slug = serializers.CharField()
    backend = serializers.CharField()
    model = serializers.CharField()
    revision = serializers.CharField()
    dimensions = serializers.IntegerField()
    metric = serializers.ChoiceField(choices=EmbeddingSpace.Metric.choices)
    storage = serializers.ChoiceField(choices=EmbeddingSpace.Storage.choices)
    index_method = serializers.ChoiceField(choices=EmbeddingSpace.Index.choices)
    index_parameters = serializers.JSONField()
    state = serializers.ChoiceField(
        choices=EmbeddingSpace.State.choices,
        help_text="building: filled for the first time, without an index; retired: of no collection any more",
    )
    collections = SpaceCollectionSerializer(many=True)
    created_at = serializers.DateTimeField()
