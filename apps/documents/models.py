"""What we know: collections, documents, their versions and chunks, embedding spaces, and the job ledger.

Document, DocumentVersion, VersionRevision, Blob, Chunk and StagedChunk are sharded by document (engines/). Offsets are
Unicode code points of a version's normalised text, end-exclusive. Names are the contract of shared design; columns may
grow.
"""

from __future__ import annotations

import uuid

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models import Q
from pgvector.django import VectorField

from apps.access.models import SLUG, Tenant

from .sources.models import Source, SourceItem, SyncRun

__all__ = [
    "Blob",
    "Chunk",
    "Collection",
    "Document",
    "DocumentVersion",
    "Drift",
    "EmbeddingSpace",
    "IngestionJob",
    "Lexeme",
    "Lexicon",
    "Reindex",
    "Source",
    "SourceItem",
    "SpaceBuild",
    "StagedChunk",
    "SyncRun",
    "VersionRevision",
]


class EmbeddingSpace(models.Model):
    """One embedding model's vectors: each space has a table of its own, `embedding_<slug>`. Holds no tenant's data."""

    class State(models.TextChoices):
        BUILDING = "building"
        LIVE = "live"
        RETIRED = "retired"

    class Index(models.TextChoices):
        HNSW = "hnsw"
        IVFFLAT = "ivfflat"

    class Storage(models.TextChoices):
        HALFVEC = "halfvec"
        VECTOR = "vector"

    class Metric(models.TextChoices):
        COSINE = "cosine"
        INNER_PRODUCT = "ip"
        L2 = "l2"

    written_by_owner = True  # the application's role may only read it (access/roles.py)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.CharField(max_length=40, unique=True, validators=[SLUG])
    backend = models.CharField(max_length=20)
    model = models.CharField(max_length=200)
    revision = models.CharField(max_length=100, blank=True)
    dimensions = models.PositiveIntegerField()
    metric = models.CharField(max_length=10, choices=Metric.choices, default=Metric.COSINE)
    storage = models.CharField(max_length=10, choices=Storage.choices, default=Storage.HALFVEC)
    index_method = models.CharField(max_length=10, choices=Index.choices, default=Index.HNSW)
    index_parameters = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.BUILDING)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.slug

    @property
    def table(self) -> str:
        """Its embedding table; the slug is validated, so that this is safe as an SQL identifier."""
        return "embedding_" + self.slug.replace("-", "_")


class Collection(models.Model):
    """A named body of documents with one way of chunking, one consistency and one live embedding space; a second one
    while it is built, or kept up for a rollback (second_space.py): whatever is published goes into both.

    `epoch` rises in every transaction that changes what a search of the collection may return; cache keys contain
    it. The counters are of live rows and are kept in the same transactions.
    """

    class Strategy(models.TextChoices):
        RECURSIVE = "recursive"
        HEADING = "heading"
        SEMANTIC = "semantic"
        FIXED = "fixed"

    class Mode(models.TextChoices):
        WRITE_BACK = "write_back"
        WRITE_THROUGH = "write_through"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False)
    slug = models.CharField(max_length=64, validators=[SLUG])
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    language = models.CharField(
        max_length=40,
        default="english",
        help_text="text search configuration of Postgres, e.g. english, german, simple",
    )
    chunking_strategy = models.CharField(max_length=20, choices=Strategy.choices, default=Strategy.RECURSIVE)
    chunking_max_tokens = models.PositiveIntegerField(default=200)
    chunking_overlap_tokens = models.PositiveIntegerField(default=0)
    chunking_heading_level = models.PositiveSmallIntegerField(default=2)
    consistency_mode = models.CharField(max_length=20, choices=Mode.choices, default=Mode.WRITE_BACK)
    consistency_window_seconds = models.PositiveIntegerField(default=30)
    space = models.ForeignKey(EmbeddingSpace, on_delete=models.PROTECT, related_name="collections")
    second_space = models.ForeignKey(
        EmbeddingSpace, on_delete=models.PROTECT, related_name="+", null=True, editable=False
    )
    canary_percent = models.FloatField(default=0, editable=False)  # of the searches that the second space answers
    promoted_at = models.DateTimeField(null=True, editable=False)
    epoch = models.BigIntegerField(default=0, editable=False)
    documents = models.BigIntegerField(default=0, editable=False)
    chunks = models.BigIntegerField(default=0, editable=False)
    tokens = models.BigIntegerField(default=0, editable=False)
    reindexing_schedule = models.CharField(max_length=100, blank=True)  # crontab, UTC; empty: when something changes
    reindexing_everything = models.BooleanField(default=False)
    reindexing_slot = models.DateTimeField(null=True, editable=False)  # the last time that was given a run
    indexed_with = models.CharField(max_length=64, blank=True, editable=False)  # reindex.fingerprint of the last run
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "slug"], name="collection_slug_in_tenant")]

    def __str__(self) -> str:
        return self.name

    @property
    def spaces(self) -> list[EmbeddingSpace]:
        """Those that hold its vectors, the one that answers first."""
        return [self.space] + ([self.second_space] if self.second_space else [])


class Document(models.Model):
    """A source's identity. `version` is the latest accepted, `live_version` what retrieval serves.

    `title` is what is shown: `given_title` where a client or curator gave one, else the live version's own.
    `live_revision`: how often the live version's content has been reindexed.
    """

    class State(models.TextChoices):
        PENDING = "pending"
        PROCESSING = "processing"
        LIVE = "live"
        STALE = "stale"
        FAILED = "failed"
        DELETED = "deleted"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    collection = models.ForeignKey(Collection, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    source_uri = models.TextField()
    given_title = models.TextField(blank=True, default="", db_default="")
    title = models.TextField(blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    attributes = SearchVectorField(default="", db_default="", editable=False)  # of the metadata: see attributes.py
    version = models.BigIntegerField()
    live_version = models.BigIntegerField(null=True)
    live_revision = models.BigIntegerField(default=0, db_default=0)
    deleted_version = models.BigIntegerField(null=True)  # nothing at or below it may be published again
    pending_since = models.DateTimeField(null=True)
    content_sha256 = models.BinaryField(max_length=32)
    media_type = models.CharField(max_length=200)
    state = models.CharField(max_length=12, choices=State.choices)
    error = models.JSONField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True)
    erased_at = models.DateTimeField(null=True)  # nothing of its content is left, the row is a tombstone

    class Meta:
        indexes = [
            # Hash partitions and shards cannot hold a unique key without the document's id: uniqueness of a source
            # URI in its collection is kept by an advisory lock in accept.py.
            models.Index(fields=["collection", "source_uri"], name="document_source"),
            models.Index(fields=["tenant", "id"], name="document_tenant"),
            # A sample of a collection: its lowest ids. Of the live only, so that no search for a name takes it.
            models.Index(fields=["collection", "id"], name="document_sample", condition=Q(live_version__isnull=False)),
            GinIndex(fields=["attributes"], name="document_attributes", gin_pending_list_limit=256),
            models.Index(fields=["collection"], name="document_waiting", condition=Q(pending_since__isnull=False)),
            models.Index(fields=["collection"], name="document_failed", condition=Q(error__isnull=False)),
        ]

    def __str__(self) -> str:
        return self.title or self.source_uri


class DocumentVersion(models.Model):
    """One accepted content of a document. After it was published only a reindex changes what was made of it: what it
    replaces is kept as a VersionRevision, and `revision` rises.

    chunk_ids, starts and ends are parallel arrays in reading order: where each chunk of this version stands. They
    live here because an edit shifts the positions of every chunk below it, and chunk rows must not be touched.
    page_starts and page_numbers, parallel too: where a page of the text begins, and its number, NULL where a part of an
    archive has no pages; both NULL for a text without pages. The page of a position is
    page_numbers[width_bucket(position, page_starts)], NULL before the first.
    """

    pk = models.CompositePrimaryKey("document_id", "version")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, db_index=False, related_name="versions")
    version = models.BigIntegerField()
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    sha256 = models.BinaryField(max_length=32)
    media_type = models.CharField(max_length=200)
    declared_type = models.CharField(max_length=200)  # what the client said, with its charset: for reading it anew
    filename = models.TextField(blank=True)
    bytes = models.BigIntegerField()
    blob_uri = models.TextField()
    same_as = models.BigIntegerField(null=True)  # the earlier version with the same content, sent again
    title = models.TextField(blank=True)
    text = models.TextField(null=True)  # noqa: DJ001  null until it is parsed; empty never happens
    characters = models.BigIntegerField(null=True)
    chunk_ids = ArrayField(models.UUIDField(), null=True)
    starts = ArrayField(models.IntegerField(), null=True)
    ends = ArrayField(models.IntegerField(), null=True)
    page_starts = ArrayField(models.IntegerField(), null=True)
    page_numbers = ArrayField(models.IntegerField(null=True), null=True)
    notes = models.JSONField(default=list)  # sentences for the curator: what could not be read
    parser = models.CharField(max_length=40, blank=True)
    chunker = models.CharField(max_length=80, blank=True)
    revision = models.BigIntegerField(default=0, db_default=0)
    source_updated_at = models.DateTimeField(null=True)
    accepted_at = models.DateTimeField()
    published_at = models.DateTimeField(null=True)
    error = models.JSONField(null=True)


class VersionRevision(models.Model):
    """What a version was before a reindex, so that its citations stay verifiable; or what it will be after one.

    `version` is the number under which the content was sent first. text NULL: the same as in the next higher revision,
    or in the version's row. replaced_at NULL: the coming revision, written by prepare and put in place by publish.
    """

    pk = models.CompositePrimaryKey("document_id", "version", "revision")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, db_index=False)
    version = models.BigIntegerField()
    revision = models.BigIntegerField()
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    media_type = models.CharField(max_length=200)
    title = models.TextField(blank=True)
    text = models.TextField(null=True)  # noqa: DJ001
    characters = models.BigIntegerField()
    chunk_ids = ArrayField(models.UUIDField(), null=True)
    starts = ArrayField(models.IntegerField(), null=True)
    ends = ArrayField(models.IntegerField(), null=True)
    page_starts = ArrayField(models.IntegerField(), null=True)
    page_numbers = ArrayField(models.IntegerField(null=True), null=True)
    notes = models.JSONField(default=list)
    parser = models.CharField(max_length=40)
    chunker = models.CharField(max_length=80)
    replaced_at = models.DateTimeField(null=True)


class Blob(models.Model):
    """The original bytes of a version, in parts of 1 MiB: in Postgres, so that accepting is one transaction."""

    pk = models.CompositePrimaryKey("document_id", "version", "part")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, db_index=False)
    version = models.BigIntegerField()
    part = models.IntegerField()
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    data = models.BinaryField()


class Chunk(models.Model):
    """A passage. Live from the version that brought it until the version that retired it (NULL: still live); a reindex
    retires it in its own version.

    The row of a chunk that survives an edit is not touched; its position in each version is in DocumentVersion.
    """

    pk = models.CompositePrimaryKey("document_id", "chunk_id")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, db_index=False)
    chunk_id = models.UUIDField()
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    collection = models.ForeignKey(Collection, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    text = models.TextField()
    sha256 = models.BinaryField(max_length=32)
    tokens = models.IntegerField()
    heading_path = ArrayField(models.TextField())
    live_from_version = models.BigIntegerField()
    live_from = models.DateTimeField()
    retired_in_version = models.BigIntegerField(null=True)
    retired_at = models.DateTimeField(null=True)
    tsv = SearchVectorField()

    class Meta:
        indexes = [
            # The tenant comes last: were it first, PostgreSQL would read all of a tenant's entries to narrow down what
            # a search by words finds, because the wall names the tenant in each query.
            models.Index(fields=["sha256", "tenant"], name="chunk_same_text"),
            # Each search reads the entries that still wait to be sorted in, 4 MiB of them if nothing else is said.
            GinIndex(
                fields=["tsv"],
                name="chunk_lexemes",
                condition=Q(retired_in_version__isnull=True),
                gin_pending_list_limit=256,
            ),
            # Searches of the past: what was live at a time and is not any more; and where little was live, all of it.
            models.Index(
                fields=["collection", "retired_at"], name="chunk_retired", condition=Q(retired_in_version__isnull=False)
            ),
            models.Index(fields=["collection", "live_from"], name="chunk_born"),
        ]


class StagedChunk(models.Model):
    """A chunk of a version on its way to being published: crash-safe, invisible to searches, deleted by publish.

    kept: the chunk is live already, `chunk_id` names its row, and text and embedding are left out. words: what is read
    in place of the text for its lexemes, where that is something else (words.py).
    """

    pk = models.CompositePrimaryKey("document_id", "version", "ordinal")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, db_index=False)
    version = models.BigIntegerField()
    ordinal = models.IntegerField()
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    chunk_id = models.UUIDField()
    kept = models.BooleanField()
    start = models.IntegerField()
    end = models.IntegerField()
    text = models.TextField(null=True)  # noqa: DJ001
    words = models.TextField(null=True)  # noqa: DJ001
    sha256 = models.BinaryField(max_length=32)
    tokens = models.IntegerField()
    heading_path = ArrayField(models.TextField())
    embedding = VectorField(null=True)  # any dimension; cast to the space's type by publish
    second_embedding = VectorField(null=True)  # of the collection's second space


class IngestionJob(models.Model):
    """The outbox and the ledger: written with the version it is for, claimed with SKIP LOCKED, never lost.

    `fence` rises with each claim; whoever holds an older one may no longer write (ledger.py).
    """

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        DEAD = "dead"
        CANCELLED = "cancelled"

    class Stage(models.TextChoices):
        PREPARE = "prepare"
        EMBED = "embed"

    class Priority(models.IntegerChoices):
        URGENT = 0
        NORMAL = 1
        LOW = 2

    class Kind(models.TextChoices):
        INGEST = "ingest"
        REINDEX = "reindex"  # of the live version, whose number is that under which its content was sent first

    class Outcome(models.TextChoices):
        PUBLISHED = "published"
        UNCHANGED = "unchanged"
        SUPERSEDED = "superseded"
        DELETED = "deleted"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    collection_id = models.UUIDField()
    document_id = models.UUIDField()  # no foreign key: on Citus the ledger is local and documents are distributed
    version = models.BigIntegerField()
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.INGEST, db_default=Kind.INGEST)
    reindex_id = models.UUIDField(null=True)  # the run that it belongs to
    bytes = models.BigIntegerField()  # of the original: small documents are worked on many at a time
    stage = models.CharField(max_length=10, choices=Stage.choices, default=Stage.PREPARE)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    priority = models.SmallIntegerField(choices=Priority.choices, default=Priority.NORMAL)
    attempts = models.IntegerField(default=0)
    fence = models.BigIntegerField(default=0)
    worker = models.CharField(max_length=100, blank=True)
    lease_until = models.DateTimeField(null=True)
    not_before = models.DateTimeField()
    base_version = models.BigIntegerField(null=True)  # the live version that the staged chunks were compared with,
    base_revision = models.BigIntegerField(null=True)  # and which revision of it
    outcome = models.CharField(max_length=12, choices=Outcome.choices, blank=True)
    error = models.JSONField(null=True)
    timings = models.JSONField(default=dict)
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["stage", "priority", "created_at"],
                name="job_open",
                condition=Q(state__in=["queued", "running"]),
            ),
            models.Index(fields=["document_id", "version"], name="job_document"),
            models.Index(fields=["tenant", "state", "created_at"], name="job_tenant_state"),
            models.Index(fields=["collection_id", "finished_at"], name="job_progress"),
            models.Index(
                fields=["reindex_id", "state", "outcome"], name="job_reindex", condition=Q(reindex_id__isnull=False)
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["document_id"],
                name="job_one_reindex",
                condition=Q(kind="reindex", state__in=["queued", "running"]),
            )
        ]

    def __str__(self) -> str:
        return f"version {self.version} of {self.document_id}"


class Drift(models.Model):
    """What is normal for a collection's vectors in its space, and how far its newest ones were from that (drift.py).

    centroids: float32, n x dimensions. mean, deviation: of a vector's distance to the nearest one, 1 - cosine. epoch:
    the collection's when it was measured last.
    """

    collection = models.OneToOneField(Collection, on_delete=models.CASCADE, primary_key=True, db_constraint=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    space = models.ForeignKey(EmbeddingSpace, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    centroids = models.BinaryField()
    mean = models.FloatField()
    deviation = models.FloatField()
    taken_at = models.DateTimeField()
    epoch = models.BigIntegerField()
    drift = models.FloatField(default=0)  # in standard deviations

    def __str__(self) -> str:
        return f"{self.drift:.2f} in {self.collection_id}"


class SpaceBuild(models.Model):
    """A walk through a collection's chunks that gives each a vector in the collection's second space.

    `cursor` is the last document looked at, in the order of ids. A walk that has found work is followed by another, for
    what was under way meanwhile; `embedded_before` are the vectors of earlier walks, or -1 where something went live
    without a vector since. `fence` rises with each claim. `finished_at` of one that runs again is when every chunk had
    its vector last.
    """

    class State(models.TextChoices):
        RUNNING = "running"
        DONE = "done"
        CANCELLED = "cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    collection = models.ForeignKey(Collection, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    space = models.ForeignKey(EmbeddingSpace, on_delete=models.PROTECT)
    state = models.CharField(max_length=10, choices=State.choices, default=State.RUNNING)
    cursor = models.UUIDField(null=True)
    embedded = models.BigIntegerField(default=0)
    embedded_before = models.BigIntegerField(default=0)
    fence = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    error = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["collection"], name="space_build_one_running", condition=Q(state="running"))
        ]
        indexes = [models.Index(fields=["collection", "created_at"], name="space_build_of_collection")]

    def __str__(self) -> str:
        return f"{self.space_id} of {self.collection_id}: {self.state}"


class Reindex(models.Model):
    """A run through a collection's live documents, which opens a job for each that is to be read and cut anew.

    `cursor` is the last document looked at, in the order of ids. When the walk is through and has opened jobs, it is
    walked once more for what was under way meanwhile; `queued_before` are the jobs of earlier walks. The counts of jobs
    are kept when the run ends; until then they are in the ledger.
    """

    class Trigger(models.TextChoices):
        MANUAL = "manual"
        SETTINGS = "settings"
        PARSER = "parser"
        SCHEDULE = "schedule"

    class State(models.TextChoices):
        RUNNING = "running"
        PAUSED = "paused"
        DONE = "done"
        CANCELLED = "cancelled"

    OPEN = (State.RUNNING, State.PAUSED)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    collection = models.ForeignKey(Collection, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    everything = models.BooleanField(default=False)  # else only what another parser or chunker than today's has made
    trigger = models.CharField(max_length=10, choices=Trigger.choices, default=Trigger.MANUAL)
    slot = models.DateTimeField(null=True)  # a schedule's: its tick twice is one run
    state = models.CharField(max_length=10, choices=State.choices, default=State.RUNNING)
    target = models.CharField(max_length=64)  # reindex.fingerprint when it began
    cursor = models.UUIDField(null=True)
    looked_at = models.BigIntegerField(default=0)
    queued = models.BigIntegerField(default=0)
    queued_before = models.BigIntegerField(default=0)
    done = models.BigIntegerField(default=0)
    unchanged = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)
    skipped = models.BigIntegerField(default=0)  # superseded, deleted or cancelled meanwhile
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["collection"], name="reindex_one_open", condition=Q(state__in=["running", "paused"])
            ),
            models.UniqueConstraint(fields=["collection", "slot"], name="reindex_slot"),
        ]
        indexes = [models.Index(fields=["collection", "created_at"], name="reindex_of_collection")]

    def __str__(self) -> str:
        return f"{self.trigger} of {self.created_at:%Y-%m-%d %H:%M}"


class Lexicon(models.Model):
    """When the words of a collection were counted: `chunks` live ones, at `epoch`. Counts are Lexeme's rows of
    `generation`; others are on their way, or left over. An erasure raises `erasures`."""

    collection = models.OneToOneField(Collection, on_delete=models.CASCADE, primary_key=True, db_constraint=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    generation = models.BigIntegerField(default=0)
    chunks = models.BigIntegerField(default=0)
    epoch = models.BigIntegerField(default=0)
    erasures = models.BigIntegerField(default=0)
    counted_at = models.DateTimeField(null=True)


class Lexeme(models.Model):
    """How many live chunks of a collection hold a lexeme, or one that stands for its frequency (lexicon.py)."""

    pk = models.CompositePrimaryKey("collection_id", "generation", "lexeme")
    collection = models.ForeignKey(Collection, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    generation = models.BigIntegerField()
    lexeme = models.TextField(db_collation="C")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    chunks = models.BigIntegerField()
