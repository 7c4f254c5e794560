"""What is normal for a collection's vectors (drift.py)."""

import django.db.models.deletion
from django.db import migrations, models

from apps.access.tenancy import TenantWall
from apps.documents.engines.operations import PlaceBeside


class Migration(migrations.Migration):
    dependencies = [
        ("access", "0002_before_the_tenant_is_known"),
        ("documents", "0005_space_builds"),
    ]

    operations = [
        migrations.CreateModel(
            name="Drift",
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
                ("centroids", models.BinaryField()),
                ("mean", models.FloatField()),
                ("deviation", models.FloatField()),
                ("taken_at", models.DateTimeField()),
                ("epoch", models.BigIntegerField()),
                ("drift", models.FloatField(default=0)),
                (
                    "space",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="documents.embeddingspace",
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
        TenantWall("documents_drift"),
        PlaceBeside("documents_drift"),
    ]
