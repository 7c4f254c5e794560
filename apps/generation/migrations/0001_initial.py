"""Answers, what hangs on them, and queries, behind the wall. The functions are asked before the tenant is known: ids
and numbers only."""

import uuid

import django.contrib.postgres.fields
import django.core.serializers.json
import django.db.models.deletion
from django.db import migrations, models

from apps.access.tenancy import TenantWall

#: Tenants that have answers: each is found by the index of tenants and times, from the one before.
TENANTS = """
CREATE FUNCTION generation_tenants() RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH RECURSIVE found AS (
        (SELECT tenant_id FROM generation_answer ORDER BY tenant_id LIMIT 1)
        UNION ALL
        SELECT (SELECT a.tenant_id FROM generation_answer a WHERE a.tenant_id > found.tenant_id
                ORDER BY a.tenant_id LIMIT 1)
        FROM found WHERE found.tenant_id IS NOT NULL
    )
    SELECT tenant_id FROM found WHERE tenant_id IS NOT NULL
$$
"""
#: Tenants that asked something in a week, or said something of an answer, and have no report of it.
UNREPORTED = """
CREATE FUNCTION generation_unreported(monday date, begins timestamptz, ends timestamptz) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.id FROM generation_tenants() t (id)
    WHERE NOT EXISTS (SELECT FROM generation_weeklyreport r WHERE r.tenant_id = t.id AND r.week = monday)
      AND (EXISTS (SELECT FROM generation_answer a
                   WHERE a.tenant_id = t.id AND a.created_at >= begins AND a.created_at < ends)
           OR EXISTS (SELECT FROM generation_feedback f
                      WHERE f.tenant_id = t.id AND f.created_at >= begins AND f.created_at < ends))
$$
"""

#: Answers that are too old, by the index of each tenant's.
EXPIRED = """
CREATE FUNCTION generation_expired(before timestamptz, at_most bigint) RETURNS TABLE (tenant_id uuid, id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.id, old.id FROM generation_tenants() t (id) CROSS JOIN LATERAL (
        SELECT a.id FROM generation_answer a WHERE a.tenant_id = t.id AND a.created_at < before
        ORDER BY a.created_at LIMIT at_most
    ) old
    LIMIT at_most
$$
"""

FORGET_CONVERSATIONS = """
CREATE FUNCTION generation_forget_conversations(before timestamptz) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH gone AS (
        DELETE FROM generation_conversation c WHERE c.created_at < before
          AND NOT EXISTS (SELECT FROM generation_answer a WHERE a.conversation_id = c.id)
        RETURNING 1
    )
    SELECT count(*) FROM gone
$$
"""
#: The next due query, most urgent first, that is no more urgent than so: queued, or with a lease that has run out.
CLAIM_QUERY = """
CREATE FUNCTION generation_claim(claimer varchar, lease interval, lowest smallint)
RETURNS TABLE (id uuid, tenant_id uuid, attempts integer, fence bigint)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE generation_query q SET
        state = 'running', worker = claimer, lease_until = now() + lease, started_at = now(),
        attempts = q.attempts + 1, fence = q.fence + 1
    WHERE q.id = (
        SELECT due.id FROM generation_query due
        WHERE due.priority >= lowest
          AND ((due.state = 'queued' AND coalesce(due.not_before <= now(), true))
               OR (due.state = 'running' AND due.lease_until < now()))
        ORDER BY due.priority, due.created_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING q.id, q.tenant_id, q.attempts, q.fence
$$
"""
#: How much waits (by priority), is being answered, is due, has been due for more than a second; seconds that the last
#: hundred answers took, on average, without waiting; seconds that something has been due for (by priority).
QUERIES = """
CREATE FUNCTION generation_queue()
RETURNS TABLE (urgent bigint, normal bigint, low bigint, running bigint, due bigint, late bigint,
               seconds double precision, waited double precision[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH going AS (
        SELECT q.priority, q.state = 'queued' AS queued, q.lease_until >= now() AS held,
               coalesce(q.not_before <= now(), true) AS due, now() - coalesce(q.not_before, q.created_at) AS waited
        FROM generation_query q WHERE q.state IN ('queued', 'running')
    ), answered AS (
        SELECT q.finished_at - q.started_at AS took FROM generation_query q
        WHERE q.finished_at IS NOT NULL AND q.state = 'done' ORDER BY q.finished_at DESC LIMIT 100
    )
    SELECT count(*) FILTER (WHERE queued AND priority = 0), count(*) FILTER (WHERE queued AND priority = 1),
           count(*) FILTER (WHERE queued AND priority = 2), count(*) FILTER (WHERE held),
           count(*) FILTER (WHERE CASE WHEN queued THEN going.due ELSE NOT held END),
           count(*) FILTER (WHERE queued AND waited > interval '1 second'),
           (SELECT extract(epoch FROM avg(took)) FROM answered),
           ARRAY(SELECT coalesce(max(extract(epoch FROM g.waited)) FILTER (WHERE g.queued AND g.due), 0)
                 FROM generate_series(0, 2) AS level LEFT JOIN going g ON g.priority = level
                 GROUP BY level ORDER BY level)
    FROM going
$$
"""
FORGET_QUERIES = """
CREATE FUNCTION generation_forget_queries(before timestamptz, at_most bigint) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH gone AS (
        DELETE FROM generation_query q WHERE q.id IN (
            SELECT ended.id FROM generation_query ended WHERE ended.finished_at < before
            LIMIT at_most FOR UPDATE SKIP LOCKED
        ) RETURNING 1
    )
    SELECT count(*) FROM gone
$$
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("access", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Conversation",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("title", models.CharField(blank=True, max_length=200)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "tenant",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["tenant", "created_at"], name="conversation_tenant_time")],
            },
        ),
        migrations.CreateModel(
            name="Answer",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                ("question", models.TextField()),
                ("answer", models.TextField()),
                ("model", models.CharField(max_length=200)),
                ("request", models.JSONField(encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ("result", models.JSONField(encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ("context", models.JSONField(encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ("grounded", models.FloatField(help_text="share of supported sentences, 0 to 1")),
                ("abstained", models.BooleanField()),
                ("prompt_version", models.IntegerField()),
                (
                    "replay_of",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="replays",
                        to="generation.answer",
                    ),
                ),
                (
                    "conversation",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="turns",
                        to="generation.conversation",
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "tenant",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["tenant", "created_at"], name="answer_tenant_time")],
            },
        ),
        migrations.CreateModel(
            name="AnswerSource",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("document_id", models.UUIDField(db_index=True)),
                (
                    "answer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="sources",
                        to="generation.answer",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Feedback",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("rating", models.CharField(choices=[("up", "Up"), ("down", "Down")], max_length=4)),
                ("comment", models.TextField(blank=True)),
                (
                    "tags",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=50), default=list, size=None
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now=True)),
                (
                    "answer",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="feedback",
                        to="generation.answer",
                    ),
                ),
                (
                    "key",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="access.apikey"),
                ),
                (
                    "tenant",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["tenant", "created_at"], name="feedback_tenant_time")],
                "constraints": [models.UniqueConstraint(fields=("answer", "key"), name="feedback_once")],
            },
        ),
        migrations.CreateModel(
            name="WeeklyReport",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("week", models.DateField(help_text="its Monday, UTC")),
                ("answers", models.IntegerField(help_text="given in the week, replays left out")),
                ("voted_down", models.IntegerField()),
                ("ungrounded", models.IntegerField()),
                ("abstained", models.IntegerField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "tenant",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("tenant", "week"), name="weekly_report_once")],
            },
        ),
        migrations.CreateModel(
            name="LowAnswer",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "reasons",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(
                            choices=[
                                ("voted_down", "Voted Down"),
                                ("ungrounded", "Ungrounded"),
                                ("abstained", "Abstained"),
                            ],
                            max_length=20,
                        ),
                        size=None,
                    ),
                ),
                (
                    "answer",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="generation.answer"),
                ),
                (
                    "report",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="low", to="generation.weeklyreport"
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"),
                ),
            ],
        ),
        TenantWall("generation_conversation", definer_reads=True),
        migrations.CreateModel(
            name="Query",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("request", models.JSONField(encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ("priority", models.SmallIntegerField(choices=[(0, "Urgent"), (1, "Normal"), (2, "Low")])),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("running", "Running"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                            ("dead", "Dead"),
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
                ("not_before", models.DateTimeField(help_text="of another try after a failure", null=True)),
                ("degraded", models.CharField(blank=True, max_length=10)),
                ("error", models.JSONField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("started_at", models.DateTimeField(help_text="the last attempt", null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "key",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        to="access.apikey",
                    ),
                ),
                (
                    "answer",
                    models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, to="generation.answer"),
                ),
                (
                    "tenant",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="access.tenant"),
                ),
            ],
            options={
                "verbose_name_plural": "queries",
                "indexes": [
                    models.Index(fields=["tenant", "created_at"], name="query_tenant_time"),
                    models.Index(
                        condition=models.Q(("state__in", ["queued", "running"])),
                        fields=["priority", "created_at"],
                        name="query_open",
                    ),
                    models.Index(fields=["finished_at"], name="query_finished"),
                ],
            },
        ),
        TenantWall("generation_answer", definer_reads=True),
        TenantWall("generation_answersource"),
        TenantWall("generation_feedback", definer_reads=True),
        TenantWall("generation_weeklyreport", definer_reads=True),
        TenantWall("generation_lowanswer"),
        TenantWall("generation_query", definer_reads=True),
        migrations.RunSQL([TENANTS], ["DROP FUNCTION generation_tenants"]),
        migrations.RunSQL([UNREPORTED], ["DROP FUNCTION generation_unreported"]),
        migrations.RunSQL([EXPIRED], ["DROP FUNCTION generation_expired"]),
        migrations.RunSQL([FORGET_CONVERSATIONS], ["DROP FUNCTION generation_forget_conversations"]),
        migrations.RunSQL([CLAIM_QUERY], ["DROP FUNCTION generation_claim"]),
        migrations.RunSQL([QUERIES], ["DROP FUNCTION generation_queue"]),
        migrations.RunSQL([FORGET_QUERIES], ["DROP FUNCTION generation_forget_queries"]),
    ]
