"""Numbers of read replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

#: outcome: used, behind (the primary had something else by then), failed. What was not used the primary did again.
REPLICA_SEARCHES = Counter("rag_replica_searches_total", "Searches done by a read replica", ["replica", "outcome"])
#: reason: unreachable, hanging, lagging, promoted.
REPLICA_LEFT_OUT = Counter("rag_replica_left_out_total", "Times a process left a replica out", ["replica", "reason"])


class ReplicaCollector(Collector):
    """How the replicas stand, as the process sees it that Prometheus asks: by (alias, usable?, seconds behind)."""

    def __init__(self, standing: Callable[[], Iterable[tuple[str, bool, float | None]]]) -> None:
        self.standing = standing

    def collect(self) -> Iterator[Metric]:
        usable = GaugeMetricFamily("rag_replica_usable", "Are searches given to this replica?", labels=["replica"])
        lag = GaugeMetricFamily("rag_replica_lag_seconds", "How far a replica is behind", labels=["replica"])
        for alias, used, behind in self.standing():
            usable.add_metric([alias], used)
            if behind is not None:
                lag.add_metric([alias], behind)
        yield usable
        yield lag
