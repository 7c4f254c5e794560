"""Labelled sets kept in the product, and what came of asking them. Behind the tenant wall, in one place.

Small: plain local tables on Citus, as answers are.
"""

from __future__ import annotations

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from apps.access.models import Tenant


class EvaluationSet(models.Model):
    """Labelled queries about a collection.

    The collection is named, not referred to: it may be made anew, with other settings, and be asked the same again.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    collection = models.CharField(max_length=64, help_text="slug")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="evaluation_set_name")]

    def __str__(self) -> str:
        return self.name


class LabelledQuery(models.Model):
    """A query of a set; answer: a text that answers it, empty where none is given."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    set = models.ForeignKey(EvaluationSet, on_delete=models.CASCADE, db_index=False, related_name="queries")
    number = models.IntegerField()  # its place in the set
    query = models.TextField()
    answer = models.TextField(blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["set", "number"], name="evaluation_query_number")]

    def __str__(self) -> str:
        return self.query[:80]


class Label(models.Model):
    """How relevant a document is to a query; it is named by its id, or by its source URI.

    A table and not a column of the query, so that an erasure finds what names its document.
    """

    query = models.ForeignKey(LabelledQuery, on_delete=models.CASCADE, related_name="labels")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    document_id = models.UUIDField(null=True)
    source_uri = models.TextField(blank=True)
    grade = models.SmallIntegerField()

    class Meta:
        indexes = [
            models.Index(fields=["document_id"], name="evaluation_label_id", condition=Q(document_id__isnull=False))
        ]

    def __str__(self) -> str:
        return self.source_uri or str(self.document_id)


class EvaluationRun(models.Model):
    """All queries of a set, asked in each of the modes.

    metrics: {mode: {metric: mean}}, when it is done. Whoever works on it renews the lease with each batch of results
    and names the fence; a run whose worker died is taken up by another, where it stopped.
    """

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    set = models.ForeignKey(EvaluationSet, on_delete=models.CASCADE, db_index=False, related_name="runs")
    modes = ArrayField(models.CharField(max_length=10))
    k = models.SmallIntegerField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    attempts = models.IntegerField(default=0)
    fence = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    metrics = models.JSONField(default=dict)
    error = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["set", "-created_at"], name="evaluation_run_newest"),
            models.Index(
                fields=["created_at"], name="evaluation_run_open", condition=Q(state__in=["queued", "running"])
            ),
        ]

    def __str__(self) -> str:
        return f"run of {self.created_at:%Y-%m-%d %H:%M}"


class QueryResult(models.Model):
    """What a search in one mode gave for one query of a run; ranks: the places of the relevant ones among the first k.

    It names no document, so that there is nothing to look for when one is erased.
    """

    run = models.ForeignKey(EvaluationRun, on_delete=models.CASCADE, db_index=False, related_name="results")
    query = models.ForeignKey(LabelledQuery, on_delete=models.CASCADE)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    mode = models.CharField(max_length=10)
    metrics = models.JSONField()
    ranks = ArrayField(models.SmallIntegerField())
    milliseconds = models.FloatField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "mode", "query"], name="evaluation_result_once")]

    def __str__(self) -> str:
        return f"{self.mode} of {self.query_id}"
