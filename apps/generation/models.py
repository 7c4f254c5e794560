"""What was asked and answered, from exactly which words."""

from __future__ import annotations

import uuid

from django.contrib.postgres.fields import ArrayField
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import Q

from apps.access.models import ApiKey, Tenant
from apps.documents.models import IngestionJob


class Conversation(models.Model):
    """Questions that go on from one another; its answers are its turns."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    title = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["tenant", "created_at"], name="conversation_tenant_time")]

    def __str__(self) -> str:
        return self.title or str(self.id)


class Answer(models.Model):
    """An answer with all that it was made from, so that it can be audited, verified and replayed.

    request: the fields it was asked with. result: the body of API.md without `id`. context: the passages in
    the order of their markers (replays.passage_json), the messages given to the model, and the parameters that
    it was given with them. prompt_version: which prompt the messages are (prompts.VERSION). replay_of: the answer
    whose passages it was made from again; that one takes it along, because it tells in what it differs.
    conversation: the one that it is a turn of. grounded, abstained: as in the result, to be looked for.
    A plain local table on Citus: an answer is written once and read by its id.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    question = models.TextField()
    answer = models.TextField()
    model = models.CharField(max_length=200)
    request = models.JSONField(encoder=DjangoJSONEncoder)
    result = models.JSONField(encoder=DjangoJSONEncoder)
    context = models.JSONField(encoder=DjangoJSONEncoder)
    grounded = models.FloatField(help_text="share of supported sentences, 0 to 1")
    abstained = models.BooleanField()
    prompt_version = models.IntegerField()
    replay_of = models.ForeignKey("self", on_delete=models.CASCADE, null=True, related_name="replays")
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, null=True, related_name="turns")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["tenant", "created_at"], name="answer_tenant_time")]

    def __str__(self) -> str:
        return self.question[:80]


class AnswerSource(models.Model):
    """A document that an answer was made from, so that its erasure finds the answer without reading them all.

    A table and not a column: under the wall, no operator of an array's or JSON's index is used.
    """

    answer = models.ForeignKey(Answer, on_delete=models.CASCADE, related_name="sources")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    document_id = models.UUIDField(db_index=True)

    def __str__(self) -> str:
        return str(self.document_id)


class Feedback(models.Model):
    """What the holder of a key says of an answer. One of each key: another takes its place.

    created_at: when it was said, or changed last. It goes with its answer, so that an erasure finds a comment that
    quotes what the answer was made from.
    """

    class Rating(models.TextChoices):
        UP = "up"
        DOWN = "down"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    answer = models.ForeignKey(Answer, on_delete=models.CASCADE, db_index=False, related_name="feedback")
    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, db_index=False)
    rating = models.CharField(max_length=4, choices=Rating.choices)
    comment = models.TextField(blank=True)
    tags = ArrayField(models.CharField(max_length=50), default=list)
    created_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["answer", "key"], name="feedback_once")]
        indexes = [models.Index(fields=["tenant", "created_at"], name="feedback_tenant_time")]

    def __str__(self) -> str:
        return f"{self.rating} for {self.answer_id}"


class WeeklyReport(models.Model):
    """How many answers of a week were bad; reports.py says which those are. voted_down: in the week, of whenever."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    week = models.DateField(help_text="its Monday, UTC")
    answers = models.IntegerField(help_text="given in the week, replays left out")
    voted_down = models.IntegerField()
    ungrounded = models.IntegerField()
    abstained = models.IntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "week"], name="weekly_report_once")]

    def __str__(self) -> str:
        return f"week of {self.week}"


class LowAnswer(models.Model):
    """An answer that a report lists, for these reasons. It goes with the answer."""

    class Reason(models.TextChoices):
        VOTED_DOWN = "voted_down"
        UNGROUNDED = "ungrounded"
        ABSTAINED = "abstained"

    report = models.ForeignKey(WeeklyReport, on_delete=models.CASCADE, related_name="low")
    answer = models.ForeignKey(Answer, on_delete=models.CASCADE)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    reasons = ArrayField(models.CharField(max_length=20, choices=Reason.choices))

    def __str__(self) -> str:
        return f"{self.answer_id}: {', '.join(self.reasons)}"


class Query(models.Model):
    """A question that a worker answers: accepted with this row, never lost (queries.py).

    request: what it was asked with. key: whose tokens it costs; null where it has none, or is gone. answer: the stored
    answer, with the id of the query unless one was given again; degraded: how it stood in then. The row keeps nothing
    else of it, and goes with it: what an erasure removes is gone from here too.
    fence rises with each claim; whoever holds an older one may no longer write. error: {status, code, detail} of the
    last attempt that failed.
    """

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"  # another try would fail the same way
        DEAD = "dead"  # has been tried often enough
        CANCELLED = "cancelled"

    Priority = IngestionJob.Priority

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    key = models.ForeignKey(ApiKey, on_delete=models.SET_NULL, null=True, db_index=False)
    request = models.JSONField(encoder=DjangoJSONEncoder)
    priority = models.SmallIntegerField(choices=IngestionJob.Priority.choices)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    attempts = models.IntegerField(default=0)
    fence = models.BigIntegerField(default=0)
    worker = models.CharField(max_length=100, blank=True)
    lease_until = models.DateTimeField(null=True)
    not_before = models.DateTimeField(null=True, help_text="of another try after a failure")
    answer = models.ForeignKey(Answer, on_delete=models.CASCADE, null=True)
    degraded = models.CharField(max_length=10, blank=True)
    error = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, help_text="the last attempt")
    finished_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "queries"
        indexes = [
            models.Index(fields=["tenant", "created_at"], name="query_tenant_time"),
            models.Index(
                fields=["priority", "created_at"], name="query_open", condition=Q(state__in=["queued", "running"])
            ),
            models.Index(fields=["finished_at"], name="query_finished"),
        ]

    def __str__(self) -> str:
        return str(self.request["question"])[:80]
