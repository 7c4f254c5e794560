"""Numbers of answering. llm_error_rate is rate(llm_errors_total) / rate(llm_requests_total)."""

from __future__ import annotations

from prometheus_client import Counter

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
