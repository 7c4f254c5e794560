"""Numbers of answering. llm_error_rate is rate(llm_errors_total) / rate(llm_requests_total)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from django.db import DatabaseError
from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .queries import Queue

LLM_REQUESTS = Counter(
    "llm_requests_total",
    "Requests to a language model, by how they ended: ok, error, cancelled",
    ["backend", "outcome"],
)
LLM_ERRORS = Counter(
    "llm_errors_total", "Requests to a language model that failed, by LLMError.code", ["backend", "kind"]
)
ANSWERS = Counter(
    "rag_answers_total",
    "Answers finished, by outcome: answered, abstained, degraded, failed, called (a tool)",
    ["outcome"],
)
CITATIONS_REFUSED = Counter(
    "rag_citations_refused_total",
    "Citations that did not verify against the stored text and never left",
    ["reason"],
)


class QueryCollector(Collector):
    """The queue of questions that workers answer, as it stands when Prometheus asks."""

    def __init__(self, queue: Callable[[], Queue]) -> None:
        self.queue = queue

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("rag_queries_waiting", "Queries that no worker has begun", labels=["priority"])
        wait = GaugeMetricFamily(
            "rag_query_expected_wait_seconds", "Until a new query would be begun", labels=["priority"]
        )
        running = GaugeMetricFamily("rag_queries_running", "Queries that workers are answering")
        try:
            queue = self.queue()
        except DatabaseError:
            return
        for priority, name in enumerate(("urgent", "normal", "low")):
            waiting.add_metric([name], queue.waiting(priority))
            wait.add_metric([name], queue.expected_wait(priority))
        running.add_metric([], queue.running)
        yield from (waiting, wait, running)
