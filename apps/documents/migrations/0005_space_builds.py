"""Building a collection's second embedding space."""

import uuid

import django.db.models.deletion
from django.db import migrations, models

from apps.access.tenancy import TenantWall
from apps.documents.engines.operations import PlaceBeside

DUE = """
CREATE FUNCTION space_builds_due() RETURNS TABLE (tenant_id uuid, id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT b.tenant_id, b.id FROM documents_spacebuild b
    WHERE b.state = 'running' AND (b.lease_until IS NULL OR b.lease_until < now())
    ORDER BY b.created_at
$$
"""
# An index is built once for all collections of a space, and a space is let go of when the last of them has.
USES = """
CREATE FUNCTION space_uses() RETURNS TABLE (space_id uuid, serving bigint, second bigint, building bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT s.id,
           (SELECT count(*) FROM documents_collection c WHERE c.space_id = s.id),
           (SELECT count(*) FROM documents_collection c WHERE c.second_space_id = s.id),
           (SELECT count(*) FROM documents_spacebuild b WHERE b.space_id = s.id AND b.state = 'running')
    FROM documents_embeddingspace s
$$
"""


class Migration(migrations.Migration):
    dependencies = [
        ("access", "0002_before_the_tenant_is_known"),
        ("documents", "0004_words"),
    ]

    operations = [
        migrations.CreateModel(
            name="SpaceBuild",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                (
                    "state",
                    models.CharField(
                        choices=[("running", "Running"), ("done", "Done"), ("cancelled", "Cancelled")],
                        default="running",
                        max_length=10,
                    ),
                ),
                ("cursor", models.UUIDField(null=True)),
                ("embedded", models.BigIntegerField(default=0)),
                ("embedded_before", models.BigIntegerField(default=0)),
                ("fence", models.BigIntegerField(default=0)),
                ("lease_until", models.DateTimeField(null=True)),
                ("error", models.JSONField(null=True)),
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
                    "space",
                    models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to="documents.embeddingspace"),
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
            model_name="spacebuild",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state", "running")), fields=("collection",), name="space_build_one_running"
            ),
        ),
        migrations.AddIndex(
            model_name="spacebuild",
            index=models.Index(fields=["collection", "created_at"], name="space_build_of_collection"),
        ),
        TenantWall("documents_spacebuild", definer_reads=True),
        PlaceBeside("documents_spacebuild"),
        migrations.RunSQL([DUE], ["DROP FUNCTION space_builds_due"]),
        migrations.RunSQL([USES], ["DROP FUNCTION space_uses"]),
    ]
