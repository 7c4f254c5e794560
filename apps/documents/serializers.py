"""Request bodies and responses of /api/v1's knowledge half. Field names are the HTTP contract."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.fields import empty

from apps.access.models import SLUG
from apps.access.serializers import (
    FlagField,
    IdField,
    ObjectField,
    StrictSerializer,
    TextField,
    WholeField,
    refuse_unbuilt,
)

from .models import Collection, Document, DocumentVersion, IngestionJob, Reindex, Source, SyncRun

MAX_URI = 2_000
MAX_TITLE = 500
MAX_VERSION = 2**63 - 1
MAX_MEDIA_TYPE = 200
MEDIA_TYPE = r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+( *;[ -~]*)?$"


def _fits_an_index(uri: str) -> None:
    """A row of a B-tree holds some 2,700 bytes; characters may have four."""
    if len(uri.encode("utf-8", "surrogatepass")) > MAX_URI:
        raise serializers.ValidationError(f"At most {MAX_URI} bytes in UTF-8.")


class ScheduleField(TextField):
    """A crontab; null is none, and becomes an empty text."""

    def __init__(self, **options: Any) -> None:
        told = 'crontab in UTC, as in "0 3 * * *"; null or empty: none'
        super().__init__(**{"max_length": 100, "allow_blank": True, "allow_null": True, "help_text": told} | options)

    def run_validation(self, data: Any = empty) -> Any:
        return super().run_validation(data) or ""


class ChunkingSerializer(StrictSerializer):
    strategy = serializers.ChoiceField(choices=Collection.Strategy.choices, required=False)
    max_tokens = WholeField(min_value=16, max_value=8192, required=False)
    overlap_tokens = WholeField(min_value=0, max_value=4096, required=False)
    heading_level = WholeField(
        min_value=1, max_value=6, required=False, help_text="`heading` never crosses a heading of this level or above"
    )


class ConsistencySerializer(StrictSerializer):
    mode = serializers.ChoiceField(choices=Collection.Mode.choices, required=False)
    window_seconds = WholeField(min_value=0, max_value=86_400, required=False)


class ReindexingSerializer(StrictSerializer):
    schedule = ScheduleField(required=False)
    everything = FlagField(
        required=False, help_text="by schedule, read all documents anew, not only what other parsers or settings made"
    )


class CollectionPatchSerializer(StrictSerializer):
    name = TextField(max_length=200, required=False)
    description = TextField(max_length=10_000, required=False, allow_blank=True)
    language = TextField(max_length=40, required=False)
    chunking = ChunkingSerializer(required=False)
    consistency = ConsistencySerializer(required=False)
    reindexing = ReindexingSerializer(required=False)
    space = TextField(max_length=40, required=False, help_text="slug of an embedding space")


class CollectionCreateSerializer(CollectionPatchSerializer):
    slug = TextField(max_length=64, validators=[SLUG])
    name = TextField(max_length=200)


class OpenReindexSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=Reindex.OPEN)


class CollectionSerializer(serializers.Serializer):
    """A collection as clients see it."""

    slug = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField()
    language = serializers.CharField()
    chunking = ChunkingSerializer()
    consistency = ConsistencySerializer()
    reindexing = ReindexingSerializer()
    space = serializers.CharField(help_text="slug of the embedding space that serves it")
    second_space = serializers.CharField(
        allow_null=True, help_text="one that is built beside it, or kept for a rollback"
    )
    epoch = serializers.IntegerField()
    documents = serializers.IntegerField(help_text="live documents")
    chunks = serializers.IntegerField(help_text="live chunks")
    pending = serializers.IntegerField(help_text="documents whose newest version is not live yet")
    indexed_per_minute = serializers.IntegerField(help_text="jobs that ended in the last minute")
    eta_seconds = serializers.IntegerField(
        allow_null=True, help_text="until the open jobs have ended, at that rate; null when none is open or none moves"
    )
    reindex = OpenReindexSerializer(allow_null=True, help_text="the run that goes on or is paused")
    created_at = serializers.DateTimeField()


class SubmissionSerializer(StrictSerializer):
    """`POST /documents`: exactly one of text and file."""

    collection = TextField(max_length=64)
    text = TextField(required=False, trim_whitespace=False)
    file = serializers.FileField(required=False, allow_empty_file=True)
    source_uri = TextField(required=False, max_length=MAX_URI, validators=[_fits_an_index])
    id = IdField(required=False)
    title = TextField(required=False, max_length=MAX_TITLE, allow_blank=True)
    metadata = ObjectField(required=False)
    version = WholeField(required=False, min_value=1, max_value=MAX_VERSION)
    media_type = serializers.RegexField(MEDIA_TYPE, required=False, max_length=MAX_MEDIA_TYPE)
    mode = serializers.ChoiceField(choices=Collection.Mode.choices, required=False)
    priority = serializers.ChoiceField(choices=["low", "normal", "urgent"], default="normal")
    source_updated_at = serializers.DateTimeField(required=False)

    def to_internal_value(self, data: Any) -> Any:
        refuse_unbuilt(data, ("uri",))
        return super().to_internal_value(data)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = [name for name in ("text", "file") if name in attrs]
        if len(given) != 1:
            raise serializers.ValidationError({given[-1] if given else "text": ["Send exactly one of text and file."]})
        if "text" in attrs and not attrs["text"].strip():
            raise serializers.ValidationError({"text": ["The text is empty."]})
        return attrs


class DocumentPatchSerializer(StrictSerializer):
    title = TextField(required=False, max_length=MAX_TITLE, allow_blank=True)
    metadata = ObjectField(required=False)


class DocumentSerializer(serializers.Serializer):
    """A document as clients see it."""

    id = serializers.UUIDField()
    collection = serializers.CharField()
    source_uri = serializers.CharField()
    title = serializers.CharField()
    metadata = serializers.DictField()
    version = serializers.IntegerField()
    live_version = serializers.IntegerField(allow_null=True)
    live_revision = serializers.IntegerField(help_text="how often the live version has been reindexed")
    state = serializers.ChoiceField(choices=Document.State.choices)
    pending_since = serializers.DateTimeField(allow_null=True)
    error = serializers.DictField(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class AcceptedSerializer(serializers.Serializer):
    """What a write answers."""

    id = serializers.UUIDField()
    collection = serializers.CharField()
    source_uri = serializers.CharField()
    version = serializers.IntegerField()
    live_version = serializers.IntegerField(allow_null=True)
    state = serializers.ChoiceField(choices=Document.State.choices)
    unchanged = serializers.BooleanField()
    job = serializers.UUIDField(allow_null=True)


class BulkResultSerializer(AcceptedSerializer):
    """The result of a line that was not refused."""

    status = serializers.IntegerField(help_text="as `POST /documents` would have answered")
    line = serializers.IntegerField(help_text="number of the line, from 1")


class VersionSerializer(serializers.Serializer):
    version = serializers.IntegerField()
    revision = serializers.IntegerField(help_text="how often it has been reindexed")
    title = serializers.CharField(help_text="the content's own, empty where it has none")
    media_type = serializers.CharField()
    filename = serializers.CharField()
    bytes = serializers.IntegerField()
    sha256 = serializers.SerializerMethodField()
    characters = serializers.IntegerField(allow_null=True)
    chunks = serializers.SerializerMethodField()
    notes = serializers.ListField(child=serializers.CharField(), help_text="what of the document could not be read")
    parser = serializers.CharField()
    chunker = serializers.CharField()
    source_updated_at = serializers.DateTimeField(allow_null=True)
    accepted_at = serializers.DateTimeField()
    published_at = serializers.DateTimeField(allow_null=True)
    error = serializers.DictField(allow_null=True)

    def get_sha256(self, version: DocumentVersion) -> str:
        return bytes(version.sha256).hex()

    @extend_schema_field(serializers.IntegerField(allow_null=True))
    def get_chunks(self, version: DocumentVersion) -> int | None:
        return version.chunk_count  # type: ignore[attr-defined]


class TextSerializer(serializers.Serializer):
    text = serializers.CharField()
    revision = serializers.IntegerField(help_text="of the version, that this text is of")
    start = serializers.IntegerField()
    end = serializers.IntegerField()
    sha256 = serializers.CharField()


class ChunkSerializer(serializers.Serializer):
    chunk_id = serializers.UUIDField()
    revision = serializers.IntegerField()
    ordinal = serializers.IntegerField()
    start = serializers.IntegerField()
    end = serializers.IntegerField()
    text = serializers.CharField()
    sha256 = serializers.CharField()
    heading_path = serializers.ListField(child=serializers.CharField())
    tokens = serializers.IntegerField()
    page = serializers.IntegerField(
        allow_null=True, help_text="where it starts, from 1; null where the text has no pages"
    )


class JobSerializer(serializers.Serializer):
    """A ledger row as clients see it."""

    id = serializers.UUIDField()
    document_id = serializers.UUIDField()
    version = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=IngestionJob.Kind.choices)
    state = serializers.ChoiceField(choices=IngestionJob.State.choices)
    stage = serializers.ChoiceField(choices=IngestionJob.Stage.choices)
    outcome = serializers.CharField()
    priority = serializers.SerializerMethodField()
    attempts = serializers.IntegerField()
    error = serializers.DictField(allow_null=True)
    timings = serializers.DictField()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)

    def get_priority(self, job: IngestionJob) -> str:
        return IngestionJob.Priority(job.priority).name.lower()


class RetrySerializer(StrictSerializer):
    """`POST /jobs/retry`: which dead jobs."""

    collection = TextField(required=False, max_length=64)
    code = TextField(required=False, max_length=100, help_text="of the error that they died with")


class RetriedSerializer(serializers.Serializer):
    retried = serializers.IntegerField()
    left = serializers.IntegerField(help_text="dead jobs that were not tried again")


class SourcePatchSerializer(StrictSerializer):
    """The settings are checked by the source's connector."""

    name = TextField(max_length=200, required=False)
    settings = ObjectField(required=False, help_text="of its kind; replaced as a whole")
    schedule = ScheduleField(required=False)
    enabled = FlagField(required=False)


class SourceCreateSerializer(SourcePatchSerializer):
    kind = serializers.ChoiceField(choices=Source.Kind.choices)
    collection = TextField(max_length=64)
    name = TextField(max_length=200)


class SyncRequestSerializer(StrictSerializer):
    """`POST /sources/{id}/sync`."""

    empty_it = FlagField(default=False, help_text="a source that holds nothing any more may be taken at its word")


class EventSerializer(StrictSerializer):
    """A line of `POST /sources/{id}/events`.

    An upsert is the whole state: if what it leaves out stayed as it was, a late event would leave other traces than the
    same event in time.
    """

    op = serializers.ChoiceField(choices=["upsert", "delete"])
    source_uri = TextField(max_length=MAX_URI, validators=[_fits_an_index])
    version = WholeField(min_value=1, max_value=MAX_VERSION)
    text = TextField(required=False, trim_whitespace=False)
    title = TextField(required=False, max_length=MAX_TITLE, allow_blank=True)
    metadata = ObjectField(required=False)
    media_type = serializers.RegexField(MEDIA_TYPE, required=False, max_length=MAX_MEDIA_TYPE)
    source_updated_at = serializers.DateTimeField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["op"] == "upsert" and not attrs.get("text", "").strip():
            raise serializers.ValidationError({"text": ["An upsert needs a text that is not empty."]})
        content = sorted(attrs.keys() & {"text", "title", "metadata", "media_type", "source_updated_at"})
        if attrs["op"] == "delete" and content:
            raise serializers.ValidationError({content[0]: ["A delete carries no content."]})
        return attrs if attrs["op"] == "delete" else {"title": "", "metadata": {}} | attrs


class SyncRunSerializer(serializers.Serializer):
    """One look at a source."""

    id = serializers.UUIDField()
    source_id = serializers.UUIDField()
    trigger = serializers.ChoiceField(choices=SyncRun.Trigger.choices)
    state = serializers.ChoiceField(choices=SyncRun.State.choices)
    attempts = serializers.IntegerField()
    counts = serializers.DictField(
        child=serializers.IntegerField(), help_text="found, new, changed, unchanged, removed, failed"
    )
    failures = serializers.ListField(
        child=serializers.DictField(), help_text="the first items that could not be taken: source_uri, code, detail"
    )
    error = serializers.DictField(allow_null=True, help_text="why the run as a whole failed: code, detail")
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class SourceItemSerializer(serializers.Serializer):
    """An item that a source was last seen to hold: a file, an object, a page."""

    source_uri = serializers.CharField()
    document_id = serializers.UUIDField(allow_null=True, help_text="null: it never became a document")
    document_state = serializers.ChoiceField(choices=Document.State.choices, allow_null=True)
    live_version = serializers.IntegerField(allow_null=True, help_text="of the document: what searches find")
    error = serializers.DictField(
        allow_null=True, help_text="why it could not be taken, else why its document failed: code, detail"
    )


class SourceSerializer(serializers.Serializer):
    """A source as clients see it."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=Source.Kind.choices)
    name = serializers.CharField()
    collection = serializers.CharField()
    settings = serializers.DictField(help_text="complete, without what is secret")
    schedule = serializers.CharField(allow_null=True)
    enabled = serializers.BooleanField()
    items = serializers.IntegerField(help_text="that became documents")
    failed_items = serializers.IntegerField(
        help_text="that could not be taken when they were last read, or whose document's newest version failed"
    )
    last_run = SyncRunSerializer(allow_null=True, help_text="the last one that has ended")
    open_run = SyncRunSerializer(allow_null=True, help_text="the one that runs, or waits")
    next_run_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class ReindexRequestSerializer(StrictSerializer):
    """`POST /reindexes`."""

    collection = TextField(max_length=64)
    everything = FlagField(default=False, help_text="also what today's parsers and settings have made")


class ReindexSerializer(serializers.Serializer):
    """A run through a collection. `looked_at` are documents, the counts after it jobs: of each document one."""

    id = serializers.UUIDField()
    collection = serializers.CharField()
    everything = serializers.BooleanField()
    trigger = serializers.ChoiceField(choices=Reindex.Trigger.choices)
    slot = serializers.DateTimeField(allow_null=True, help_text="of the schedule that started it")
    state = serializers.ChoiceField(choices=Reindex.State.choices)
    documents = serializers.IntegerField(help_text="live documents of the collection")
    looked_at = serializers.IntegerField()
    queued = serializers.IntegerField(help_text="jobs so far; each ends in one of the next five")
    open = serializers.IntegerField()
    done = serializers.IntegerField(help_text="documents that have a new revision")
    unchanged = serializers.IntegerField(help_text="read and cut anew with the same result")
    failed = serializers.IntegerField(help_text="dead letters; their documents are as they were")
    skipped = serializers.IntegerField(help_text="superseded by a newer version, deleted or cancelled meanwhile")
    eta_seconds = serializers.IntegerField(
        allow_null=True, help_text="at the rate of the last minute; null when it does not run or nothing moves"
    )
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
