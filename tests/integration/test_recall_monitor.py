"""The recall monitor tells a vector index that finds too little, and that it is good again."""

from __future__ import annotations

import logging
from uuid import uuid4

import pytest
from django.db import connections
from django.test import override_settings

from apps.access.models import Tenant
from apps.documents import spaces, vector_index
from apps.documents.models import Collection
from apps.retrieval import query_vectors, recall
from apps.retrieval.filters import compile_filter
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery
from tests.conftest import make_collection

from .test_spaces import ROWS, _fill, _vectors

QUESTIONS = 30


@pytest.fixture
def worn(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Collection:
    """A collection whose graph has so few edges that searches do not find their way."""
    slug = f"worn-{uuid4().hex[:8]}"
    parameters = {"m": 2, "ef_construction": 4}
    spaces.create(slug=slug, backend="fake", model="fake", dimensions=64, index_parameters=parameters)
    collection = make_collection(tenant, space=slug)
    _fill(collection, _vectors(ROWS, 1), [uuid4() for _ in range(ROWS)])
    monkeypatch.setattr(recall, "SHARE", 1.0)
    recall.redis_client().delete(recall._NOTES)
    return collection


def _ask(collection: Collection, **values: object) -> None:
    texts = [f"question {number}" for number in range(QUESTIONS)]
    query_vectors._keep(collection.tenant_id, collection.space, texts, _vectors(QUESTIONS, 9))
    for text in texts:
        query = SearchQuery(text, collections=(collection.slug,), mode="dense", **values)
        search(tenant_id=collection.tenant_id, query=query, reuse=False)


def test_an_index_that_finds_too_little_is_told(worn: Collection, caplog: pytest.LogCaptureFixture) -> None:
    slug = worn.space.slug
    with override_settings(EXACT_SCAN_ROWS=0), caplog.at_level(logging.WARNING):
        _ask(worn)
        low = recall.measure()[slug]
        assert low < recall.LEAST and slug in caplog.text
        assert recall.metrics.RECALL.labels(space=slug)._value.get() == low
        assert recall.measure() == {}  # each is measured once
        worn.space.index_parameters = spaces.HNSW_DEFAULTS
        with connections["owner"].cursor() as cursor:
            cursor.execute(f"DROP INDEX {vector_index.index_name(worn.space)}")
        vector_index.ensure_index(worn.space)
        recall.redis_client().delete(f"rs:recall:{slug}")
        _ask(worn)
        assert recall.measure()[slug] > 0.98


def test_what_the_index_is_not_asked_for_leaves_nothing(worn: Collection) -> None:
    _ask(worn)  # so few that all are compared
    with override_settings(EXACT_SCAN_ROWS=0):
        _ask(worn, filter=compile_filter({"metadata.year": 1}))
    assert recall.measure() == {}


def test_a_collection_that_is_gone_is_left_out(worn: Collection) -> None:
    with override_settings(EXACT_SCAN_ROWS=0):
        _ask(worn)
        note = recall.redis_client().lindex(recall._NOTES, 0)
        strange = note.replace(b'["docs"]', b'["gone"]')
        recall.redis_client().lset(recall._NOTES, 0, strange)
        recall.measure()
    assert recall.redis_client().llen(f"rs:recall:{worn.space.slug}") == QUESTIONS - 1


def test_other_searches_are_not_noted(worn: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "SHARE", 0.0)
    with override_settings(EXACT_SCAN_ROWS=0):
        _ask(worn)
    assert not recall.redis_client().exists(recall._NOTES)
