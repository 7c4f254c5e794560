"""The schema: plain tables first, then Document, then what hangs on it (the order that Citus needs)."""

import uuid

import django.contrib.postgres.fields
import django.contrib.postgres.indexes
import django.contrib.postgres.search
import django.core.validators
import django.db.models.deletion
import pgvector.django.vector
from django.contrib.postgres.operations import BtreeGinExtension
from django.db import migrations, models
from pgvector.django import VectorExtension

from apps.access.tenancy import TenantWall
from apps.documents.engines.operations import CreateShardedModel, PlaceBeside


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("access", "0001_initial"),
    ]

    operations = [
        VectorExtension(),
        BtreeGinExtension(),
        migrations.CreateModel(
            name="EmbeddingSpace",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                (
                    "slug",
                    models.CharField(
                        max_length=40,
                        unique=True,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?$",
                                "lower-case letters, digits, - and _; at most 64",
                            )
                        ],
                    ),
                ),
                ("backend", models.CharField(max_length=20)),
                ("model", models.CharField(max_length=200)),
                ("revision", models.CharField(blank=True, max_length=100)),
                ("dimensions", models.PositiveIntegerField()),
                (
                    "metric",
                    models.CharField(
                        choices=[("cosine", "Cosine"), ("ip", "Inner Product"), ("l2", "L2")],
                        default="cosine",
                        max_length=10,
                    ),
                ),
                (
                    "storage",
                    models.CharField(
                        choices=[("halfvec", "Halfvec"), ("vector", "Vector")],
                        default="halfvec",
                        max_length=10,
                    ),
                ),
                (
                    "index_method",
                    models.CharField(choices=[("hnsw", "Hnsw"), ("ivfflat", "Ivfflat")], default="hnsw", max_length=10),
                ),
                ("index_parameters", models.JSONField(blank=True, default=dict)),
                (
                    "state",
                    models.CharField(
                        choices=[("building", "Building"), ("live", "Live"), ("retired", "Retired")],
                        default="building",
                        max_length=10,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="Collection",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                (
                    "slug",
                    models.CharField(
                        max_length=64,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?$",
                                "lower-case letters, digits, - and _; at most 64",
                            )
                        ],
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                ("description", models.TextField(blank=True)),
                (
                    "language",
                    models.CharField(
                        default="english",
                        help_text="text search configuration of Postgres, e.g. english, german, simple",
                        max_length=40,
                    ),
                ),
                (
                    "chunking_strategy",
                    models.CharField(
                        choices=[
                            ("recursive", "Recursive"),
                            ("heading", "Heading"),
                            ("semantic", "Semantic"),
                            ("fixed", "Fixed"),
                        ],
                        default="recursive",
                        max_length=20,
                    ),
                ),
                ("chunking_max_tokens", models.PositiveIntegerField(default=200)),
                ("chunking_overlap_tokens", models.PositiveIntegerField(default=0)),
                ("chunking_heading_level", models.PositiveSmallIntegerField(default=2)),
                (
                    "consistency_mode",
                    models.CharField(
                        choices=[("write_back", "Write Back"), ("write_through", "Write Through")],
                        default="write_back",
                        max_length=20,
                    ),
                ),
                ("consistency_window_seconds", models.PositiveIntegerField(default=30)),
                ("canary_percent", models.FloatField(default=0, editable=False)),
                ("promoted_at", models.DateTimeField(editable=False, null=True)),
                ("epoch", models.BigIntegerField(default=0, editable=False)),
                ("documents", models.BigIntegerField(default=0, editable=False)),
                ("chunks", models.BigIntegerField(default=0, editable=False)),
                ("tokens", models.BigIntegerField(default=0, editable=False)),
                ("reindexing_schedule", models.CharField(blank=True, max_length=100)),
                ("reindexing_everything", models.BooleanField(default=False)),
                ("reindexing_slot", models.DateTimeField(editable=False, null=True)),
                ("indexed_with", models.CharField(blank=True, editable=False, max_length=64)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"
                    ),
                ),
                (
                    "space",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="collections",
                        to="documents.embeddingspace",
                    ),
                ),
                (
                    "second_space",
                    models.ForeignKey(
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="documents.embeddingspace",
                    ),
                ),
            ],
        ),
        TenantWall("documents_collection", definer_reads=True),
        PlaceBeside("documents_collection"),
        CreateShardedModel(
            name="Document",
            shard_key="id",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                ("source_uri", models.TextField()),
                ("given_title", models.TextField(blank=True, db_default="", default="")),
                ("title", models.TextField(blank=True)),
                ("metadata", models.JSONField(blank=True, default=dict)),
                (
                    "attributes",
                    django.contrib.postgres.search.SearchVectorField(db_default="", default="", editable=False),
                ),
                ("version", models.BigIntegerField()),
                ("live_version", models.BigIntegerField(null=True)),
                ("live_revision", models.BigIntegerField(db_default=0, default=0)),
                ("deleted_version", models.BigIntegerField(null=True)),
                ("pending_since", models.DateTimeField(null=True)),
                ("content_sha256", models.BinaryField(max_length=32)),
                ("media_type", models.CharField(max_length=200)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("processing", "Processing"),
                            ("live", "Live"),
                            ("stale", "Stale"),
                            ("failed", "Failed"),
                            ("deleted", "Deleted"),
                        ],
                        max_length=12,
                    ),
                ),
                ("error", models.JSONField(null=True)),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
                ("deleted_at", models.DateTimeField(null=True)),
                ("erased_at", models.DateTimeField(null=True)),
                (
                    "collection",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="documents.collection",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="access.tenant",
                    ),
                ),
            ],
        ),
        CreateShardedModel(
            name="Chunk",
            # Up to a page a row stays whole: a search by words reads the lexemes of hundreds of them.
            parameters="toast_tuple_target = 8160",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "document_id",
                        "chunk_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("chunk_id", models.UUIDField()),
                ("text", models.TextField()),
                ("sha256", models.BinaryField(max_length=32)),
                ("tokens", models.IntegerField()),
                (
                    "heading_path",
                    django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), size=None),
                ),
                ("live_from_version", models.BigIntegerField()),
                ("live_from", models.DateTimeField()),
                ("retired_in_version", models.BigIntegerField(null=True)),
                ("retired_at", models.DateTimeField(null=True)),
                ("tsv", django.contrib.postgres.search.SearchVectorField()),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="access.tenant",
                    ),
                ),
                (
                    "collection",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="documents.collection",
                    ),
                ),
                (
                    "document",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.CASCADE, to="documents.document"
                    ),
                ),
            ],
        ),
        CreateShardedModel(
            name="Blob",
            uncompressed=("data",),
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "document_id",
                        "version",
                        "part",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("version", models.BigIntegerField()),
                ("part", models.IntegerField()),
                ("data", models.BinaryField()),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="access.tenant",
                    ),
                ),
                (
                    "document",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.CASCADE, to="documents.document"
                    ),
                ),
            ],
        ),
        CreateShardedModel(
            name="DocumentVersion",
            uncompressed=("text",),
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "document_id",
                        "version",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("version", models.BigIntegerField()),
                ("sha256", models.BinaryField(max_length=32)),
                ("media_type", models.CharField(max_length=200)),
                ("declared_type", models.CharField(max_length=200)),
                ("filename", models.TextField(blank=True)),
                ("bytes", models.BigIntegerField()),
                ("blob_uri", models.TextField()),
                ("same_as", models.BigIntegerField(null=True)),
                ("title", models.TextField(blank=True)),
                ("text", models.TextField(null=True)),
                ("characters", models.BigIntegerField(null=True)),
                (
                    "chunk_ids",
                    django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), null=True, size=None),
                ),
                (
                    "starts",
                    django.contrib.postgres.fields.ArrayField(base_field=models.IntegerField(), null=True, size=None),
                ),
                (
                    "ends",
                    django.contrib.postgres.fields.ArrayField(base_field=models.IntegerField(), null=True, size=None),
                ),
                (
                    "page_starts",
                    django.contrib.postgres.fields.ArrayField(base_field=models.IntegerField(), null=True, size=None),
                ),
                (
                    "page_numbers",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.IntegerField(null=True), null=True, size=None
                    ),
                ),
                ("notes", models.JSONField(default=list)),
                ("parser", models.CharField(blank=True, max_length=40)),
                ("chunker", models.CharField(blank=True, max_length=80)),
                ("revision", models.BigIntegerField(db_default=0, default=0)),
                ("source_updated_at", models.DateTimeField(null=True)),
                ("accepted_at", models.DateTimeField()),
                ("published_at", models.DateTimeField(null=True)),
                ("error", models.JSONField(null=True)),
                (
                    "document",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="versions",
                        to="documents.document",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="access.tenant",
                    ),
                ),
            ],
        ),
        CreateShardedModel(
            name="VersionRevision",
            uncompressed=("text",),
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "document_id",
                        "version",
                        "revision",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("version", models.BigIntegerField()),
                ("revision", models.BigIntegerField()),
                ("media_type", models.CharField(max_length=200)),
                ("title", models.TextField(blank=True)),
                ("text", models.TextField(null=True)),
                ("characters", models.BigIntegerField()),
                (
                    "chunk_ids",
                    django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), null=True, size=None),
                ),
                (
                    "starts",
                    django.contrib.postgres.fields.ArrayField(base_field=models.IntegerField(), null=True, size=None),
                ),
                (
                    "ends",
                    django.contrib.postgres.fields.ArrayField(base_field=models.IntegerField(), null=True, size=None),
                ),
                (
                    "page_starts",
                    django.contrib.postgres.fields.ArrayField(base_field=models.IntegerField(), null=True, size=None),
                ),
                (
                    "page_numbers",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.IntegerField(null=True), null=True, size=None
                    ),
                ),
                ("notes", models.JSONField(default=list)),
                ("parser", models.CharField(max_length=40)),
                ("chunker", models.CharField(max_length=80)),
                ("replaced_at", models.DateTimeField(null=True)),
                (
                    "document",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.CASCADE, to="documents.document"
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="access.tenant",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="IngestionJob",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                ("collection_id", models.UUIDField()),
                ("document_id", models.UUIDField()),
                ("version", models.BigIntegerField()),
                (
                    "kind",
                    models.CharField(
                        choices=[("ingest", "Ingest"), ("reindex", "Reindex")],
                        db_default="ingest",
                        default="ingest",
                        max_length=10,
                    ),
                ),
                ("reindex_id", models.UUIDField(null=True)),
                ("bytes", models.BigIntegerField()),
                (
                    "stage",
                    models.CharField(
                        choices=[("prepare", "Prepare"), ("embed", "Embed")], default="prepare", max_length=10
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("running", "Running"),
                            ("done", "Done"),
                            ("dead", "Dead"),
                            ("cancelled", "Cancelled"),
                        ],
                        default="queued",
                        max_length=10,
                    ),
                ),
                (
                    "priority",
                    models.SmallIntegerField(choices=[(0, "Urgent"), (1, "Normal"), (2, "Low")], default=1),
                ),
                ("attempts", models.IntegerField(default=0)),
                ("fence", models.BigIntegerField(default=0)),
                ("worker", models.CharField(blank=True, max_length=100)),
                ("lease_until", models.DateTimeField(null=True)),
                ("not_before", models.DateTimeField()),
                ("base_version", models.BigIntegerField(null=True)),
                ("base_revision", models.BigIntegerField(null=True)),
                (
                    "outcome",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("published", "Published"),
                            ("unchanged", "Unchanged"),
                            ("superseded", "Superseded"),
                            ("deleted", "Deleted"),
                        ],
                        max_length=12,
                    ),
                ),
                ("error", models.JSONField(null=True)),
                ("timings", models.JSONField(default=dict)),
                ("created_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="access.tenant",
                    ),
                ),
            ],
        ),
        CreateShardedModel(
            name="StagedChunk",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "document_id",
                        "version",
                        "ordinal",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("version", models.BigIntegerField()),
                ("ordinal", models.IntegerField()),
                ("chunk_id", models.UUIDField()),
                ("kept", models.BooleanField()),
                ("start", models.IntegerField()),
                ("end", models.IntegerField()),
                ("text", models.TextField(null=True)),
                ("words", models.TextField(null=True)),
                ("sha256", models.BinaryField(max_length=32)),
                ("tokens", models.IntegerField()),
                (
                    "heading_path",
                    django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), size=None),
                ),
                ("embedding", pgvector.django.vector.VectorField(null=True)),
                ("second_embedding", pgvector.django.vector.VectorField(null=True)),
                (
                    "document",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.CASCADE, to="documents.document"
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="access.tenant",
                    ),
                ),
            ],
        ),
        migrations.AddIndex(
            model_name="document",
            index=models.Index(fields=["collection", "source_uri"], name="document_source"),
        ),
        migrations.AddIndex(
            model_name="document",
            index=models.Index(fields=["tenant", "id"], name="document_tenant"),
        ),
        migrations.AddIndex(
            model_name="document",
            index=models.Index(
                condition=models.Q(("live_version__isnull", False)), fields=["collection", "id"], name="document_sample"
            ),
        ),
        migrations.AddIndex(
            model_name="document",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["attributes"], gin_pending_list_limit=256, name="document_attributes"
            ),
        ),
        migrations.AddIndex(
            model_name="document",
            index=models.Index(
                condition=models.Q(("pending_since__isnull", False)),
                fields=["collection"],
                name="document_waiting",
            ),
        ),
        migrations.AddIndex(
            model_name="document",
            index=models.Index(
                condition=models.Q(("error__isnull", False)), fields=["collection"], name="document_failed"
            ),
        ),
        migrations.AddIndex(
            model_name="chunk",
            index=models.Index(fields=["sha256", "tenant"], name="chunk_same_text"),
        ),
        migrations.AddIndex(
            model_name="chunk",
            index=django.contrib.postgres.indexes.GinIndex(
                condition=models.Q(("retired_in_version__isnull", True)),
                fields=["tsv"],
                gin_pending_list_limit=256,
                name="chunk_lexemes",
            ),
        ),
        migrations.AddIndex(
            model_name="chunk",
            index=models.Index(
                condition=models.Q(("retired_in_version__isnull", False)),
                fields=["collection", "retired_at"],
                name="chunk_retired",
            ),
        ),
        migrations.AddIndex(
            model_name="chunk",
            index=models.Index(fields=["collection", "live_from"], name="chunk_born"),
        ),
        migrations.AddConstraint(
            model_name="collection",
            constraint=models.UniqueConstraint(fields=("tenant", "slug"), name="collection_slug_in_tenant"),
        ),
        migrations.AddIndex(
            model_name="ingestionjob",
            index=models.Index(
                condition=models.Q(("state__in", ["queued", "running"])),
                fields=["stage", "priority", "created_at"],
                name="job_open",
            ),
        ),
        migrations.AddIndex(
            model_name="ingestionjob",
            index=models.Index(fields=["document_id", "version"], name="job_document"),
        ),
        migrations.AddIndex(
            model_name="ingestionjob",
            index=models.Index(fields=["tenant", "state", "created_at"], name="job_tenant_state"),
        ),
        migrations.AddIndex(
            model_name="ingestionjob",
            index=models.Index(fields=["collection_id", "finished_at"], name="job_progress"),
        ),
        migrations.AddIndex(
            model_name="ingestionjob",
            index=models.Index(
                condition=models.Q(("reindex_id__isnull", False)),
                fields=["reindex_id", "state", "outcome"],
                name="job_reindex",
            ),
        ),
        migrations.AddConstraint(
            model_name="ingestionjob",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kind", "reindex"), ("state__in", ["queued", "running"])),
                fields=("document_id",),
                name="job_one_reindex",
            ),
        ),
        TenantWall("documents_ingestionjob", definer_reads=True),
        PlaceBeside("documents_ingestionjob"),
        migrations.CreateModel(
            name="Reindex",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                ("everything", models.BooleanField(default=False)),
                (
                    "trigger",
                    models.CharField(
                        choices=[
                            ("manual", "Manual"),
                            ("settings", "Settings"),
                            ("parser", "Parser"),
                            ("schedule", "Schedule"),
                        ],
                        default="manual",
                        max_length=10,
                    ),
                ),
                ("slot", models.DateTimeField(null=True)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("running", "Running"),
                            ("paused", "Paused"),
                            ("done", "Done"),
                            ("cancelled", "Cancelled"),
                        ],
                        default="running",
                        max_length=10,
                    ),
                ),
                ("target", models.CharField(max_length=64)),
                ("cursor", models.UUIDField(null=True)),
                ("looked_at", models.BigIntegerField(default=0)),
                ("queued", models.BigIntegerField(default=0)),
                ("queued_before", models.BigIntegerField(default=0)),
                ("done", models.BigIntegerField(default=0)),
                ("unchanged", models.BigIntegerField(default=0)),
                ("failed", models.BigIntegerField(default=0)),
                ("skipped", models.BigIntegerField(default=0)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "collection",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="documents.collection",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="access.tenant",
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="reindex",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state__in", ["running", "paused"])),
                fields=("collection",),
                name="reindex_one_open",
            ),
        ),
        migrations.AddConstraint(
            model_name="reindex",
            constraint=models.UniqueConstraint(fields=("collection", "slot"), name="reindex_slot"),
        ),
        migrations.AddIndex(
            model_name="reindex",
            index=models.Index(fields=["collection", "created_at"], name="reindex_of_collection"),
        ),
        TenantWall("documents_reindex", definer_reads=True),
        PlaceBeside("documents_reindex"),
    ]
