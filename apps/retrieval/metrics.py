"""Numbers of searching, shared by all that ask questions."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

QUERY_SECONDS = Histogram(
    "rag_query_latency_seconds",
    "Time of one stage of answering a question",
    ["stage"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30),
)
RECALL = Gauge(
    "rag_recall_at_k",
    "Of the ten nearest vectors, the share that the vector index finds: the mean of a space's last sampled searches",
    ["space"],
    multiprocess_mode="mostrecent",
)
RECALL_DROPPED = Counter(
    "rag_recall_dropped_total", "Sampled searches that were not compared with an exact one", ["space", "reason"]
)
RECALL_SAMPLES = Counter("rag_recall_samples_total", "Searches that were compared with an exact one", ["space"])
SPACE_SECONDS = Histogram(
    "rag_space_search_seconds",
    "Time of a search by vectors in a space, of collections that have a second one: its share beside the other's",
    ["space"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)
SPACE_SEARCHES = Counter(
    "rag_space_searches_total", "The same searches, by whether anything was found", ["space", "outcome"]
)
PARTIAL_SEARCHES = Counter("rag_partial_searches_total", "Searches answered while a part of a cluster was away")
RERANKS = Counter("rag_reranks_total", "Calls of the reranker", ["outcome"])
FRESH_READS = Counter(
    "rag_fresh_reads_total",
    "Searches that had newer versions brought live: all of them (fresh) or not (stale)",
    ["outcome"],
)
FRESH_DOCUMENTS = Counter(
    "rag_fresh_documents_total", "Documents whose newer version was live when a search had waited"
)
VECTOR_SEARCH_SUCCESS = Counter("vector_search_success_total", "Searches with a dense leg that returned")
VECTOR_SEARCH_FAILURE = Counter("vector_search_failure_total", "Searches with a dense leg that failed")
#: cache: result (whole searches, in this process), embedding (vectors of queries), answer. outcome: hit, miss.
CACHE = Counter("rag_cache_lookups_total", "Look-ups in a cache, by cache and outcome", ["cache", "outcome"])
