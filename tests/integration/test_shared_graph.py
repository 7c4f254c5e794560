"""A vector index holds the chunks of many tenants: those of one are found, whatever others put there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from django.test import override_settings

from apps.access.models import Tenant
from apps.access.problems import Problem
from apps.documents import spaces, vector_index
from apps.documents.embedding.fake import FakeEmbedder
from apps.documents.models import Collection
from apps.retrieval import policy, recall, statement
from apps.retrieval.filters import compile_filter
from apps.retrieval.search import search
from apps.retrieval.types import Hit, SearchQuery
from tests.conftest import make_collection

from .test_spaces import _fill

OURS, THEIRS, DIMENSIONS = 60, 8_000, 64
QUESTION = "When does the harbour office open in winter?"


@pytest.fixture(params=["hnsw", "ivfflat"])
def shared(
    tenant: Tenant,
    other_tenant: Tenant,
    ingest: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Collection:
    """Ours, about anything; another tenant's thousands are all nearer to the question."""
    monkeypatch.setattr(policy, "SCANNED", 500)  # as if there were forty times as many
    slug = f"shared-{uuid4().hex[:8]}"
    space = spaces.create(slug=slug, backend="fake", model="fake", dimensions=DIMENSIONS, index_method=request.param)
    ours, theirs = make_collection(tenant, space=slug), make_collection(other_tenant, space=slug)
    asked = FakeEmbedder(model="fake", dimensions=DIMENSIONS).embed([QUESTION])
    near = asked + 0.1 * np.random.default_rng(3).standard_normal((THEIRS, DIMENSIONS))
    near = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    with vector_index.index_after(space, coming=THEIRS):
        for number in range(OURS):
            text = f"Rule {number} of the allotment: water plot {number * 7 % 60} after {number % 12} o'clock."
            ingest(ours, text, source_uri=f"r{number}", metadata={"even": number % 2 == 0})
        _fill(theirs, near, [uuid4() for _ in range(THEIRS)])
    chosen = policy.index_settings

    def unsorted(*args: Any, **values: Any) -> dict[str, str]:
        # As if ours were more than the planner would rather sort. With the index's own: these reach a cluster's nodes.
        return chosen(*args, **values) | {"enable_sort": "off"}

    monkeypatch.setattr(policy, "index_settings", unsorted)
    return ours


def _hits(collection: Collection, **values: Any) -> list[Hit]:
    query = SearchQuery(QUESTION, k=10, **values)
    return search(tenant_id=collection.tenant_id, query=query, reuse=False).hits


@pytest.mark.parametrize("filtered", [False, True], ids=["all", "filtered"])
@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_what_others_put_near_the_question_hides_nothing(
    shared: Collection, mode: str, filtered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "most_compared", lambda scopes, wanted: 0)
    values = {"mode": mode, "filter": compile_filter({"metadata.even": True}) if filtered else None}
    exact = _hits(shared, **values)
    with override_settings(EXACT_SCAN_ROWS=0):
        assert _hits(shared, **values) == exact and len(exact) == 10
        told = search(
            tenant_id=shared.tenant_id, query=SearchQuery(QUESTION, k=10, explain=True, **values), reuse=False
        ).as_json()["explain"]["dense"]
    if shared.space.index_method == "hnsw":  # (so few lists are nearly all looked into)
        assert told["tried"] > 1 and told["method"] == ("filtered" if filtered else "exact")


def test_not_all_are_compared_where_many_pass_a_filter(shared: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what an index finds for a filter only so many are counted as might all be compared: here two of thirty."""
    if shared.space.index_method != "hnsw":
        pytest.skip("it is not done again")
    monkeypatch.setattr(policy, "most_compared", lambda scopes, wanted: 1)
    query = SearchQuery(QUESTION, k=10, mode="dense", explain=True, filter=compile_filter({"metadata.even": True}))
    with override_settings(EXACT_SCAN_ROWS=0):
        for most, method in ((20, "index"), (40, "filtered")):
            monkeypatch.setattr(policy, "MOST_AFTERWARDS", most)
            told = search(tenant_id=shared.tenant_id, query=query, reuse=False).as_json()["explain"]["dense"]
            assert told["tried"] > 1 and told["method"] == method


def test_a_search_that_is_done_again_has_no_more_time_than_one(
    shared: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shared.space.index_method != "hnsw":
        pytest.skip("it is not done again")
    runs, run = [], statement.execute

    def slowly(sql: str, parameters: dict[str, Any]) -> Any:
        if "ranked AS" in sql:
            runs.append(run("SELECT pg_sleep(0.4)", {}).fetchall())
        return run(sql, parameters)

    monkeypatch.setattr(policy, "most_compared", lambda scopes, wanted: 0)
    monkeypatch.setattr(statement, "execute", slowly)
    with override_settings(EXACT_SCAN_ROWS=0):
        assert len(_hits(shared, mode="dense")) == 10 and len(runs) > 1
        with override_settings(SEARCH_TIMEOUT_SECONDS=0.6), pytest.raises(Problem) as refused:
            _hits(shared, mode="dense")
    assert (refused.value.status_code, refused.value.code) == (504, "search_timeout")


def test_the_recall_monitor_measures_what_a_search_would_find(shared: Collection) -> None:
    asked = FakeEmbedder(model="fake", dimensions=DIMENSIONS).embed([QUESTION])[0]
    said = {"tenant": str(shared.tenant_id), "collections": [shared.slug], "space": shared.space.slug}
    with override_settings(EXACT_SCAN_ROWS=0):
        assert recall._sample(said, asked) == 1.0
