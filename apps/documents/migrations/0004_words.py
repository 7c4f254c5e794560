"""The words of collections: counts of their lexemes."""

import django.db.models.deletion
from django.db import migrations, models

from apps.access.tenancy import TenantWall
from apps.documents.engines.operations import PlaceBeside

# Called without a tenant; ids only. A collection is counted anew when a tenth of its chunks has changed, or daily.
DUE = """
CREATE FUNCTION lexicons_due() RETURNS TABLE (tenant_id uuid, collection_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT c.tenant_id, c.id FROM documents_collection c LEFT JOIN documents_lexicon l ON l.collection_id = c.id
    WHERE coalesce(l.epoch, 0) <> c.epoch
      AND (10 * abs(c.chunks - coalesce(l.chunks, 0)) > coalesce(l.chunks, 0) OR l.counted_at IS NULL
           OR l.counted_at < now() - interval '1 day')
    ORDER BY l.counted_at NULLS FIRST
$$
"""


class Migration(migrations.Migration):
    dependencies = [
        ("access", "0002_before_the_tenant_is_known"),
        ("documents", "0003_sources"),
    ]

    operations = [
        migrations.CreateModel(
            name="Lexeme",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "collection_id",
                        "generation",
                        "lexeme",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("generation", models.BigIntegerField()),
                ("lexeme", models.TextField(db_collation="C")),
                ("chunks", models.BigIntegerField()),
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
        migrations.CreateModel(
            name="Lexicon",
            fields=[
                (
                    "collection",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        serialize=False,
                        to="documents.collection",
                    ),
                ),
                ("generation", models.BigIntegerField(default=0)),
                ("chunks", models.BigIntegerField(default=0)),
                ("epoch", models.BigIntegerField(default=0)),
                ("erasures", models.BigIntegerField(default=0)),
                ("counted_at", models.DateTimeField(null=True)),
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
        TenantWall("documents_lexicon", definer_reads=True),
        TenantWall("documents_lexeme"),
        PlaceBeside("documents_lexicon", "documents_lexeme"),
        migrations.RunSQL([DUE], ["DROP FUNCTION lexicons_due"]),
    ]
