"""The Celery application. Queues: prepare (CPU), embed (GPU where there is one), generate, default."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_init, worker_ready, worker_shutting_down

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ragsite.settings")

app = Celery("ragsite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["apps.documents", "apps.retrieval", "apps.generation", "apps.evaluation"])


@worker_init.connect
def serve_metrics(**_: Any) -> None:
    """A worker on a machine of its own gives its metrics itself, on METRICS_PORT."""
    from django.conf import settings

    if settings.METRICS_PORT:
        from prometheus_client import start_http_server

        from .health import registry

        start_http_server(settings.METRICS_PORT, registry=registry())


@worker_ready.connect
def watch_folders(sender: Any, **_: Any) -> None:
    """A worker that syncs sources also watches their folders."""
    if "sync" in sender.app.amqp.queues.consume_from:
        from apps.documents.sources import runs, watching

        watching.start(runs.stopping)


@worker_shutting_down.connect
def put_syncs_back(**_: Any) -> None:
    """A sync may take hours: it goes on elsewhere, or when the worker is back."""
    from apps.documents.sources import runs

    runs.stopping.set()
