"""The drift monitor tells a new subject from more of the same, and has an index of lists built anew for it."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from uuid import uuid4

import pytest

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import drift, index_care, metrics, remove, spaces, vector_index
from apps.documents.accept import Accepted
from apps.documents.models import Collection, Drift
from tests.conftest import make_collection
from tests.support.parts import indexes_of

Ingest = Callable[..., Accepted]
HARBOUR = ["gate", "crane", "light", "quay", "ship", "rope", "anchor", "mast", "tide", "buoy", "pier", "dock", "sail"]
KITCHEN = ["oven", "flour", "butter", "yeast", "salt", "pepper", "spoon", "kettle", "onion", "garlic", "pan", "bowl"]


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "FEWEST", 60)
    monkeypatch.setattr(drift, "FEWEST_NEW", 15)


@pytest.fixture
def lists(tenant: Tenant) -> Collection:
    slug = f"drift-{uuid4().hex[:8]}"
    spaces.create(slug=slug, backend="fake", model="fake", dimensions=64, index_method="ivfflat")
    return make_collection(tenant, space=slug)


def _tell(collection: Collection, ingest: Ingest, words: list[str], count: int, seed: int) -> Accepted:
    dice = random.Random(seed)
    told = [
        ingest(collection, " ".join(dice.choices(words, k=12)), source_uri=f"{seed}-{number}")
        for number in range(count)
    ]
    return told[-1]


def test_a_new_subject_is_told_and_the_lists_learn_it(
    lists: Collection, ingest: Ingest, caplog: pytest.LogCaptureFixture
) -> None:
    _tell(lists, ingest, HARBOUR, 80, 1)
    vector_index.index_concurrently(lists.space)
    files = indexes_of(lists.space.table)
    assert lists.id not in drift.measure_all()  # what is normal is taken
    assert lists.id not in drift.measure_all()  # and nothing has changed
    _tell(lists, ingest, HARBOUR, 20, 2)
    with caplog.at_level(logging.WARNING):
        assert abs(drift.measure_all()[lists.id]) < drift.ALARM / 2
        assert str(lists.id) not in caplog.text
        _tell(lists, ingest, KITCHEN, 40, 3)
        assert drift.measure_all()[lists.id] > drift.ALARM
        assert str(lists.id) in caplog.text
    assert metrics.DRIFT.labels(space=lists.space.slug)._value.get() > drift.ALARM
    assert not set(indexes_of(lists.space.table)) & set(files), "the index was built anew"
    drift.measure_all()
    told = metrics.DRIFT.labels(space=lists.space.slug)._value.get()
    assert math.isnan(told), "what does not change any more raises no alarm for ever"
    _tell(lists, ingest, KITCHEN, 20, 4)  # and what is normal taken again
    assert drift.measure_all()[lists.id] < drift.ALARM


def test_a_graph_is_only_told_about(
    collection: Collection, ingest: Ingest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(index_care, "rebuild_lists", lambda space: pytest.fail("a graph has no lists"))
    _tell(collection, ingest, HARBOUR, 70, 1)
    drift.measure_all()
    _tell(collection, ingest, KITCHEN, 30, 2)
    with caplog.at_level(logging.WARNING):
        assert drift.measure_all()[collection.id] > drift.ALARM
    assert str(collection.id) in caplog.text


def test_an_erasure_takes_the_means_along(collection: Collection, ingest: Ingest) -> None:
    document = _tell(collection, ingest, HARBOUR, 70, 1).document
    drift.measure_all()
    with tenancy.scope(collection.tenant_id):
        assert Drift.objects.filter(collection=collection).exists()
        remove.delete(tenant_id=collection.tenant_id, document_id=document.id, erase=True)
        assert not Drift.objects.filter(collection=collection).exists()


def test_a_small_collection_has_no_normal(collection: Collection, ingest: Ingest) -> None:
    _tell(collection, ingest, HARBOUR, 10, 1)
    drift.measure_all()
    with tenancy.scope(collection.tenant_id):
        assert not Drift.objects.filter(collection=collection).exists()


def test_one_that_cannot_be_measured_does_not_keep_the_others_from_it(
    collection: Collection, other_tenant: Tenant, ingest: Ingest, caplog: pytest.LogCaptureFixture
) -> None:
    both = (collection, make_collection(other_tenant))
    for each in both:
        _tell(each, ingest, HARBOUR, 70, 1)
    drift.measure_all()
    for seed, (broken, other) in enumerate((both, both[::-1]), start=2):
        for each in both:
            _tell(each, ingest, HARBOUR, 20, seed)
        with tenancy.scope(broken.tenant_id):
            kept = Drift.objects.get(collection=broken).centroids
            Drift.objects.filter(collection=broken).update(centroids=b"torn")
        found = drift.measure_all()
        assert other.id in found and broken.id not in found and str(broken.id) in caplog.text
        with tenancy.scope(broken.tenant_id):
            Drift.objects.filter(collection=broken).update(centroids=kept)
