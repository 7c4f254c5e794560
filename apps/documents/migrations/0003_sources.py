"""Sources, what they hold, and each look at them. The functions are asked before the tenant is known: ids only."""

import uuid

import django.db.models.deletion
from django.db import migrations, models

from apps.access.tenancy import TenantWall
from apps.documents.engines.operations import PlaceBeside

TABLES = ("documents_source", "documents_sourceitem", "documents_syncrun")
CLAIM = """
CREATE FUNCTION sync_claim(claimer varchar, lease interval, wanted uuid)
RETURNS TABLE (id uuid, tenant_id uuid, source_id uuid, fence bigint, attempts integer)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH head AS (
        SELECT due.id FROM documents_syncrun due
        WHERE (wanted IS NULL OR due.id = wanted)
          AND ((due.state = 'running' AND due.lease_until < now())
               OR (due.state = 'queued' AND due.not_before <= now() AND NOT EXISTS (
                   SELECT 1 FROM documents_syncrun other
                   WHERE other.source_id = due.source_id AND other.state = 'running')))
        ORDER BY due.created_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE documents_syncrun r SET
        state = 'running', worker = claimer, lease_until = now() + lease, attempts = r.attempts + 1,
        fence = r.fence + 1, started_at = least(r.started_at, now())
    WHERE r.id IN (SELECT head.id FROM head)
    RETURNING r.id, r.tenant_id, r.source_id, r.fence, r.attempts
$$
"""
DUE = """
CREATE FUNCTION sync_due() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT count(*) FROM documents_syncrun due
    WHERE (due.state = 'running' AND due.lease_until < now())
       OR (due.state = 'queued' AND due.not_before <= now() AND NOT EXISTS (
           SELECT 1 FROM documents_syncrun other WHERE other.source_id = due.source_id AND other.state = 'running'))
$$
"""
SCHEDULES = """
CREATE FUNCTION schedules()
RETURNS TABLE (kind text, tenant_id uuid, id uuid, schedule varchar, slot timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT 'source', s.tenant_id, s.id, s.schedule, s.slot FROM documents_source s WHERE s.enabled AND s.schedule <> ''
    UNION ALL
    SELECT 'collection', c.tenant_id, c.id, c.reindexing_schedule, c.reindexing_slot FROM documents_collection c
    WHERE c.reindexing_schedule <> ''
$$
"""
WATCHED = """
CREATE FUNCTION source_watched() RETURNS TABLE (tenant_id uuid, id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT s.tenant_id, s.id FROM documents_source s
    WHERE s.enabled AND s.kind = 'folder' AND s.settings @> '{"watch": true}'
$$
"""
FORGET = """
CREATE FUNCTION sync_forget(before timestamptz) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH gone AS (
        DELETE FROM documents_syncrun r
        WHERE r.finished_at < before
          AND EXISTS (SELECT 1 FROM documents_syncrun later
                      WHERE later.source_id = r.source_id AND later.finished_at > r.finished_at)
        RETURNING 1
    )
    SELECT count(*) FROM gone
$$
"""


class Migration(migrations.Migration):
    dependencies = [
        ("access", "0002_before_the_tenant_is_known"),
        ("documents", "0002_ledger_functions"),
    ]

    operations = [
        migrations.CreateModel(
            name="Source",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                (
                    "kind",
                    models.CharField(
                        choices=[("folder", "Folder"), ("s3", "S3 bucket"), ("web", "Web site"), ("feed", "Feed")],
                        max_length=10,
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                ("settings", models.JSONField(blank=True, default=dict)),
                ("secret", models.BinaryField(null=True)),
                ("schedule", models.CharField(blank=True, max_length=100)),
                ("slot", models.DateTimeField(editable=False, null=True)),
                ("enabled", models.BooleanField(default=True)),
                ("scans", models.BigIntegerField(default=0, editable=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "collection",
                    models.ForeignKey(
                        db_constraint=False, on_delete=django.db.models.deletion.CASCADE, to="documents.collection"
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="SourceItem",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "collection_id", "key", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("key", models.CharField(db_collation="C", max_length=2000)),
                ("document_id", models.UUIDField(null=True)),
                ("state", models.JSONField(default=dict)),
                ("error", models.JSONField(null=True)),
                ("missing_in", models.BigIntegerField(null=True)),
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
                    "source",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="items",
                        to="documents.source",
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
            name="SyncRun",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                (
                    "trigger",
                    models.CharField(
                        choices=[("manual", "Manual"), ("schedule", "Schedule"), ("change", "Change")], max_length=10
                    ),
                ),
                ("slot", models.DateTimeField(null=True)),
                ("empty_it", models.BooleanField(default=False)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("running", "Running"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                        ],
                        default="queued",
                        max_length=10,
                    ),
                ),
                ("attempts", models.IntegerField(default=0)),
                ("fence", models.BigIntegerField(default=0)),
                ("worker", models.CharField(blank=True, max_length=100)),
                ("lease_until", models.DateTimeField(null=True)),
                ("not_before", models.DateTimeField()),
                ("counts", models.JSONField(default=dict)),
                ("failures", models.JSONField(default=list)),
                ("error", models.JSONField(null=True)),
                ("created_at", models.DateTimeField()),
                ("started_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "source",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="runs", to="documents.source"
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
            model_name="source",
            constraint=models.UniqueConstraint(fields=("collection", "name"), name="source_name_in_collection"),
        ),
        migrations.AddIndex(
            model_name="sourceitem",
            index=models.Index(fields=["source", "key"], name="item_of_source"),
        ),
        migrations.AddIndex(
            model_name="sourceitem",
            index=models.Index(fields=["document_id"], name="item_document"),
        ),
        migrations.AddIndex(
            model_name="sourceitem",
            index=models.Index(
                condition=models.Q(("missing_in__isnull", False)), fields=["source", "missing_in"], name="item_missing"
            ),
        ),
        migrations.AddIndex(
            model_name="sourceitem",
            index=models.Index(condition=models.Q(("error__isnull", False)), fields=["source"], name="item_failed"),
        ),
        migrations.AddIndex(
            model_name="syncrun",
            index=models.Index(
                condition=models.Q(("state__in", ["queued", "running"])), fields=["created_at"], name="run_open"
            ),
        ),
        migrations.AddIndex(
            model_name="syncrun",
            index=models.Index(fields=["source", "-created_at"], name="run_newest"),
        ),
        migrations.AddConstraint(
            model_name="syncrun",
            constraint=models.UniqueConstraint(fields=("source", "slot"), name="run_of_slot"),
        ),
        migrations.AddConstraint(
            model_name="syncrun",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state", "queued")), fields=("source",), name="run_queued"
            ),
        ),
        migrations.AddConstraint(
            model_name="syncrun",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state", "running")), fields=("source",), name="run_running"
            ),
        ),
        TenantWall("documents_source", definer_reads=True),
        TenantWall("documents_sourceitem"),
        TenantWall("documents_syncrun", definer_reads=True),
        PlaceBeside(*TABLES),
        migrations.RunSQL([CLAIM], ["DROP FUNCTION sync_claim"]),
        migrations.RunSQL([DUE], ["DROP FUNCTION sync_due"]),
        migrations.RunSQL([SCHEDULES], ["DROP FUNCTION schedules"]),
        migrations.RunSQL([WATCHED], ["DROP FUNCTION source_watched"]),
        migrations.RunSQL([FORGET], ["DROP FUNCTION sync_forget"]),
    ]
