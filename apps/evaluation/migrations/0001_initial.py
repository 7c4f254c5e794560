"""Labelled sets and runs, behind the wall. The function is asked before the tenant is known: ids only."""

import uuid

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

from apps.access.tenancy import TenantWall

#: Runs that may be worked on now: as many as leave no more than two under way, so that there is room for other work.
DUE = """
CREATE FUNCTION evaluation_due() RETURNS TABLE (tenant_id uuid, id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT due.tenant_id, due.id FROM evaluation_evaluationrun due
    WHERE due.state = 'queued' OR (due.state = 'running' AND due.lease_until < now())
    ORDER BY due.created_at
    LIMIT (SELECT greatest(0, 2 - count(*)) FROM evaluation_evaluationrun going
           WHERE going.state = 'running' AND going.lease_until >= now())
$$
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("access", "0002_before_the_tenant_is_known"),
    ]

    operations = [
        migrations.CreateModel(
            name="EvaluationSet",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=200)),
                ("description", models.TextField(blank=True)),
                ("collection", models.CharField(help_text="slug", max_length=64)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "tenant",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"),
                ),
            ],
        ),
        migrations.CreateModel(
            name="EvaluationRun",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                (
                    "modes",
                    django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=10), size=None),
                ),
                ("k", models.SmallIntegerField()),
                (
                    "state",
                    models.CharField(
                        choices=[("queued", "Queued"), ("running", "Running"), ("done", "Done"), ("failed", "Failed")],
                        default="queued",
                        max_length=10,
                    ),
                ),
                ("attempts", models.IntegerField(default=0)),
                ("fence", models.BigIntegerField(default=0)),
                ("lease_until", models.DateTimeField(null=True)),
                ("metrics", models.JSONField(default=dict)),
                ("error", models.JSONField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "tenant",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"),
                ),
                (
                    "set",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="runs",
                        to="evaluation.evaluationset",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="LabelledQuery",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("number", models.IntegerField()),
                ("query", models.TextField()),
                ("answer", models.TextField(blank=True)),
                (
                    "set",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="queries",
                        to="evaluation.evaluationset",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Label",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("document_id", models.UUIDField(null=True)),
                ("source_uri", models.TextField(blank=True)),
                ("grade", models.SmallIntegerField()),
                (
                    "tenant",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"),
                ),
                (
                    "query",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="labels",
                        to="evaluation.labelledquery",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="QueryResult",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("mode", models.CharField(max_length=10)),
                ("metrics", models.JSONField()),
                ("ranks", django.contrib.postgres.fields.ArrayField(base_field=models.SmallIntegerField(), size=None)),
                ("milliseconds", models.FloatField()),
                (
                    "query",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="evaluation.labelledquery"),
                ),
                (
                    "run",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="results",
                        to="evaluation.evaluationrun",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="evaluationset",
            constraint=models.UniqueConstraint(fields=("tenant", "name"), name="evaluation_set_name"),
        ),
        migrations.AddIndex(
            model_name="evaluationrun",
            index=models.Index(fields=["set", "-created_at"], name="evaluation_run_newest"),
        ),
        migrations.AddIndex(
            model_name="evaluationrun",
            index=models.Index(
                condition=models.Q(("state__in", ["queued", "running"])),
                fields=["created_at"],
                name="evaluation_run_open",
            ),
        ),
        migrations.AddConstraint(
            model_name="labelledquery",
            constraint=models.UniqueConstraint(fields=("set", "number"), name="evaluation_query_number"),
        ),
        migrations.AddIndex(
            model_name="label",
            index=models.Index(
                condition=models.Q(("document_id__isnull", False)), fields=["document_id"], name="evaluation_label_id"
            ),
        ),
        migrations.AddConstraint(
            model_name="queryresult",
            constraint=models.UniqueConstraint(fields=("run", "mode", "query"), name="evaluation_result_once"),
        ),
        TenantWall("evaluation_evaluationset"),
        TenantWall("evaluation_labelledquery"),
        TenantWall("evaluation_label"),
        TenantWall("evaluation_evaluationrun", definer_reads=True),
        TenantWall("evaluation_queryresult"),
        migrations.RunSQL([DUE], ["DROP FUNCTION evaluation_due"]),
    ]
