"""The recall monitor tells a vector index that finds too little, and that it is good again."""

from __future__ import annotations

import logging
import math
from uuid import uuid4

import pytest
from django.db import connection, connections
from django.test import override_settings

from apps.access import tenancy
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
    for space in filter(None, (collection.space, collection.second_space)):
        query_vectors._keep(collection.tenant_id, space, texts, _vectors(QUESTIONS, 9))
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
    assert _dropped(worn, "gone") == 1


def test_other_searches_are_not_noted(worn: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "SHARE", 0.0)
    with override_settings(EXACT_SCAN_ROWS=0):
        _ask(worn)
    assert not recall.redis_client().exists(recall._NOTES)


def _dropped(collection: Collection, reason: str) -> float:
    return recall.metrics.RECALL_DROPPED.labels(space=collection.space.slug, reason=reason)._value.get()


def test_with_a_canary_both_spaces_are_measured(worn: Collection) -> None:
    """Each search by the space that answered it, whatever its share."""
    second = spaces.create(slug=f"second-{uuid4().hex[:8]}", backend="fake", model="fake", dimensions=64)
    with tenancy.scope(worn.tenant_id):
        Collection.objects.filter(id=worn.id).update(second_space=second, canary_percent=50)
        worn.refresh_from_db()
    _fill(worn, _vectors(ROWS, 1), [uuid4() for _ in range(ROWS)], second)
    with override_settings(EXACT_SCAN_ROWS=0):
        _ask(worn)
        found = recall.measure()
    assert found.keys() == {worn.space.slug, second.slug}
    assert found[worn.space.slug] < recall.LEAST < found[second.slug]
    samples = [recall.redis_client().llen(f"rs:recall:{slug}") for slug in found]
    assert sum(samples) == QUESTIONS and min(samples) > QUESTIONS / 4


def test_an_exact_scan_may_take_longer_than_a_search_and_where_it_takes_too_long_the_last_value_is_not_kept(
    worn: Collection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is beat's, and nobody waits for it: else large collections would never be measured, and never be told."""
    with tenancy.scope(worn.tenant_id), connection.cursor() as cursor:
        row = f"gen_random_uuid(), gen_random_uuid(), tenant_id, collection_id, live, embedding FROM {worn.space.table}"
        cursor.execute(f"INSERT INTO {worn.space.table} SELECT {row}, generate_series(1, 30)")
    gauge = recall.metrics.RECALL.labels(space=worn.space.slug)
    with override_settings(EXACT_SCAN_ROWS=0), caplog.at_level(logging.WARNING):
        _ask(worn)
        with override_settings(SEARCH_TIMEOUT_SECONDS=0.01):
            assert recall.measure()[worn.space.slug] == gauge._value.get()
        _ask(worn)
        monkeypatch.setattr(recall, "EXACT_SECONDS", 0.003)
        assert recall.measure() == {}
    assert _dropped(worn, "failed") >= QUESTIONS
    assert math.isnan(gauge._value.get()) and "statement timeout" in caplog.text


def test_what_there_is_no_time_for_waits(worn: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "AT_IT_SECONDS", 0.0)
    with override_settings(EXACT_SCAN_ROWS=0):
        _ask(worn)
        recall.measure()
    assert recall.redis_client().llen(recall._NOTES) == QUESTIONS - 1
