"""Counters of ingestion, and gauges read from the ledger when Prometheus asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from django.db import DatabaseError
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector

from . import db

DOCUMENTS_ACCEPTED = Counter("rag_documents_accepted_total", "Documents accepted by the API", ["result"])
JOBS_ENDED = Counter("rag_ingestion_jobs_ended_total", "Ingestion jobs that ended", ["outcome"])
CHUNKS_EMBEDDED = Counter("rag_chunks_embedded_total", "Chunks given to the embedding model")
STAGE_SECONDS = Histogram(
    "rag_ingestion_stage_seconds",
    "Time of a published version in one stage: wait, parse, chunk, embed, publish; in all, with all waiting: total",
    ["stage"],
    buckets=(0.005, 0.02, 0.05, 0.1, 0.5, 1, 5, 30, 120, 600),
)
DRIFT = Gauge(
    "rag_embedding_drift",
    "How much further a collection's newest vectors are from what it held before, in standard deviations: the worst",
    ["space"],
    multiprocess_mode="mostrecent",
)
_STAGES = {
    "queued_ms": "wait",
    "parse_ms": "parse",
    "chunk_ms": "chunk",
    "embed_ms": "embed",
    "publish_ms": "publish",
    "total_ms": "total",
}


def milliseconds(seconds: float) -> float:
    """As a job's timings have it."""
    return round(seconds * 1000, 1)


def published(timings: Mapping[str, float], *, again: bool) -> None:
    """Count a version that went live, by its job's timings; again: in a new revision."""
    JOBS_ENDED.labels(outcome="reindexed" if again else "published").inc()
    if again:
        return
    for name, stage in _STAGES.items():
        if name in timings:
            STAGE_SECONDS.labels(stage=stage).observe(timings[name] / 1000)


class LedgerCollector(Collector):
    """Queue depth by stage and state, and the age of the oldest document that is not searchable yet."""

    def collect(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("rag_queue_depth", "Ingestion jobs in the ledger", labels=["stage", "state"])
        lag = GaugeMetricFamily("rag_ingest_lag_seconds", "Age of the oldest accepted document that is not live yet")
        try:
            found = db.rows("overview")
        except DatabaseError:
            return
        for stage, state, jobs, _, _ in found:
            depth.add_metric([stage, state], jobs)
        lag.add_metric([], max((float(row[4] or 0) for row in found if row[1] in ("queued", "running")), default=0.0))
        yield depth
        yield lag

    def describe(self) -> list[Metric]:
        return []


def register() -> None:
    """Add the collector once, however often Django is set up in this process."""
    if not any(isinstance(collector, LedgerCollector) for collector in REGISTRY._collector_to_names):
        REGISTRY.register(LedgerCollector())
