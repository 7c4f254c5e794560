"""A source, what it was last seen to hold, and each time it was looked at. Behind the tenant wall, in one place."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from apps.access.models import Tenant


class Source(models.Model):
    """Where documents of a collection come from. `settings` are the connector's, complete, without what is secret."""

    class Kind(models.TextChoices):
        FOLDER = "folder"
        S3 = "s3", "S3 bucket"
        WEB = "web", "Web site"
        FEED = "feed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False)
    collection = models.ForeignKey("documents.Collection", on_delete=models.CASCADE, db_constraint=False)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    name = models.CharField(max_length=200)
    settings = models.JSONField(default=dict, blank=True)
    secret = models.BinaryField(null=True, editable=False)  # encrypted (kinds.py)
    schedule = models.CharField(max_length=100, blank=True)  # crontab, UTC; empty: by hand alone
    slot = models.DateTimeField(null=True, editable=False)  # the last time of the schedule that was given a run
    enabled = models.BooleanField(default=True)
    scans = models.BigIntegerField(default=0, editable=False)  # how often reading it was begun
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["collection", "name"], name="source_name_in_collection")]

    def __str__(self) -> str:
        return self.name


class SourceItem(models.Model):
    """Something that a source held when it was last read: a file, an object, a page. `key` is its source URI.

    state: what its connector wants to remember of it, as it was when its content was taken. error: why it could not
    be taken. missing_in: the number of the scan that did not find it. The key is compared byte by byte, in the order
    in which connectors list.
    """

    pk = models.CompositePrimaryKey("collection_id", "key")
    collection = models.ForeignKey(
        "documents.Collection", on_delete=models.CASCADE, db_constraint=False, db_index=False
    )
    key = models.CharField(max_length=2_000, db_collation="C")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    source = models.ForeignKey(Source, on_delete=models.CASCADE, db_index=False, related_name="items")
    document_id = models.UUIDField(null=True)
    state = models.JSONField(default=dict)
    error = models.JSONField(null=True)
    missing_in = models.BigIntegerField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["source", "key"], name="item_of_source"),
            models.Index(fields=["document_id"], name="item_document"),
            models.Index(fields=["source", "missing_in"], name="item_missing", condition=Q(missing_in__isnull=False)),
            models.Index(fields=["source"], name="item_failed", condition=Q(error__isnull=False)),
        ]


class SyncRun(models.Model):
    """One look at a source. At most one of a source waits and one runs, so that it is never read twice at once.

    counts: items found, new, changed, unchanged, removed, failed. failures: the first few {source_uri, code, detail}.
    """

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    class Trigger(models.TextChoices):
        MANUAL = "manual"
        SCHEDULE = "schedule"
        CHANGE = "change"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    source = models.ForeignKey(Source, on_delete=models.CASCADE, related_name="runs")
    trigger = models.CharField(max_length=10, choices=Trigger.choices)
    slot = models.DateTimeField(null=True)
    empty_it = models.BooleanField(default=False)  # the source may be found empty
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    attempts = models.IntegerField(default=0)
    fence = models.BigIntegerField(default=0)
    worker = models.CharField(max_length=100, blank=True)
    lease_until = models.DateTimeField(null=True)
    not_before = models.DateTimeField()
    counts = models.JSONField(default=dict)
    failures = models.JSONField(default=list)
    error = models.JSONField(null=True)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["source", "slot"], name="run_of_slot"),
            models.UniqueConstraint(fields=["source"], condition=Q(state="queued"), name="run_queued"),
            models.UniqueConstraint(fields=["source"], condition=Q(state="running"), name="run_running"),
        ]
        indexes = [
            models.Index(fields=["created_at"], name="run_open", condition=Q(state__in=["queued", "running"])),
            models.Index(fields=["source", "-created_at"], name="run_newest"),
        ]

    def __str__(self) -> str:
        return f"sync of {self.source_id}"
