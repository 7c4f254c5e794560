"""A graph that has lost many of its entries finds as much as before, and is built anew before VACUUM mends it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from django.db import DatabaseError, connection, connections
from django.test import override_settings
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import index_care, spaces, vector_index
from apps.documents.db import vector_text
from apps.documents.engines import engine_for
from apps.documents.models import Collection, EmbeddingSpace
from apps.retrieval.scopes import scopes_of
from apps.retrieval.statement import index_settings
from apps.retrieval.types import SearchQuery
from tests.conftest import make_collection
from tests.integration.test_spaces import ROWS, Floats, K, _exact, _fill, _found, _vectors
from tests.support.node import Node
from tests.support.parts import indexes_of, parts_of
from tests.support.processes import wait_for


@pytest.fixture
def filled(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Collection, Floats, list[UUID]]]:
    """A collection of ROWS vectors in a space of its own."""
    monkeypatch.setattr(index_care, "FEWEST_DEAD", 10)
    with _another_filled(tenant) as filled:
        yield filled


@contextmanager
def _another_filled(tenant: Tenant) -> Iterator[tuple[Collection, Floats, list[UUID]]]:
    space = spaces.create(slug=f"care-{uuid4().hex[:8]}", backend="fake", model="fake", dimensions=64)
    collection = make_collection(tenant, space=space.slug, slug=f"care-{uuid4().hex[:8]}")
    vectors, ids = _vectors(ROWS, 1), [uuid4() for _ in range(ROWS)]
    _fill(collection, vectors, ids)
    yield collection, vectors, ids
    space.index_method = "ivfflat"  # later tests tend their own graphs only
    space.save(using="owner")


def _replace(collection: Collection, vectors: Floats, ids: list[UUID], part: float) -> tuple[Floats, list[UUID]]:
    """New vectors in place of some, as publishing new versions writes them: what there is then."""
    rows = np.flatnonzero(np.random.default_rng(5).random(len(ids)) < part)
    new, keys = _vectors(len(rows), 6), [uuid4() for _ in rows]
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        old = [ids[row] for row in rows]
        # Statistics are told when a session has time for it, or ends: those of a cluster's nodes end with this.
        cursor.execute("SET LOCAL citus.max_cached_conns_per_worker = 0")
        cursor.execute(f"UPDATE {collection.space.table} SET live = false WHERE chunk_id = ANY(%s)", [old])
        assert cursor.rowcount == len(rows)
        cursor.execute("SELECT pg_stat_force_next_flush()")
    wait_for(lambda: sum(part.dead for part in parts_of(collection.space.table)) == len(rows), what="the statistics")
    _fill(collection, new, keys)
    vectors, ids = vectors.copy(), list(ids)
    vectors[rows] = new
    for row, key in zip(rows, keys, strict=True):
        ids[row] = key
    return vectors, ids


def _recall(collection: Collection, vectors: Floats, ids: list[UUID]) -> float:
    asked = _vectors(30, 9)
    return float(np.mean([len(_found(collection, q)[0] & _exact(vectors, ids, "cosine", q)) / K for q in asked]))


def _breadth(collection: Collection) -> int:
    with override_settings(EXACT_SCAN_ROWS=0), tenancy.scope(collection.tenant_id):
        return int(index_settings(scopes_of([collection.slug]), SearchQuery("", mode="dense"))["hnsw.ef_search"])


def _dead(collection: Collection) -> float:
    return index_care.look(collection.space.table)


def _tend(collection: Collection) -> list[str]:
    """The tables of the collection's space that were tended: other tests leave dead entries in theirs."""
    return [table for table in index_care.tend() if table.startswith(collection.space.table)]


def _files(collection: Collection) -> list[int]:
    return [file for file, _ in indexes_of(collection.space.table)]


def test_a_larger_graph_is_searched_further(filled: tuple[Collection, Floats, list[UUID]]) -> None:
    collection, _, _ = filled

    def breadth(chunks: int) -> int:
        with tenancy.scope(collection.tenant_id):
            Collection.objects.filter(id=collection.id).update(chunks=chunks)
        try:
            return _breadth(collection)
        finally:
            with tenancy.scope(collection.tenant_id):
                Collection.objects.filter(id=collection.id).update(chunks=ROWS)  # other tests count them

    assert breadth(ROWS) == breadth(400_000) < breadth(500_000)
    assert breadth(1_600_000) == 2 * breadth(400_000)
    assert breadth(10**9) == breadth(1_600_000)


def test_a_graph_with_dead_entries_is_searched_more_broadly_and_then_built_anew(
    filled: tuple[Collection, Floats, list[UUID]],
) -> None:
    collection, vectors, ids = filled
    assert _dead(collection) == 0 and not _tend(collection)
    breadth, files, before = _breadth(collection), _files(collection), _recall(collection, vectors, ids)

    vectors, ids = _replace(collection, vectors, ids, 0.3)
    share = _dead(collection)
    assert 0.15 < share < 0.35
    assert breadth * 1.2 < _breadth(collection) < breadth * 1.6
    assert _recall(collection, vectors, ids) >= before - 0.01

    tended = _tend(collection)
    assert len(tended) == engine_for(connection).graphs(connection)
    assert _dead(collection) == 0 and _breadth(collection) == breadth
    assert not set(_files(collection)) & set(files)
    assert _recall(collection, vectors, ids) >= before - 0.003
    assert not _tend(collection)


def test_few_dead_entries_do_not_matter_until_they_have_waited_long(
    filled: tuple[Collection, Floats, list[UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, vectors, ids = filled
    _replace(collection, vectors, ids, 0.05)
    files = _files(collection)
    assert not _tend(collection) and _files(collection) == files
    monkeypatch.setattr(index_care, "LONGEST_DAYS", -1)
    assert _tend(collection) and _dead(collection) == 0
    assert _files(collection) == files, "few are vacuumed away, and no graph is built for them"


def test_a_table_that_was_never_vacuumed_has_waited_since_its_space_was_made(
    filled: tuple[Collection, Floats, list[UUID]],
) -> None:
    """Not since the server was started: one that is restarted every day would never come to it."""
    collection, vectors, ids = filled
    _replace(collection, vectors, ids, 0.05)
    EmbeddingSpace.objects.using("owner").filter(id=collection.space_id).update(
        created_at=timezone.now() - timedelta(days=index_care.LONGEST_DAYS + 1)
    )
    assert _tend(collection) and _dead(collection) == 0


def test_dead_entries_are_found_again_after_a_crash_of_the_database(
    filled: tuple[Collection, Floats, list[UUID]],
) -> None:
    """PostgreSQL drops its statistics then, and takes the table for one without dead rows."""
    collection, vectors, ids = filled
    own = connections["owner"].get_connection_params()
    places = [{}]
    if engine_for(connection).name == "citus":
        nodes = {part.node.rpartition(":")[::2] for part in parts_of(collection.space.table)}
        places = [{"host": host, "port": port} for host, port in nodes]
        if any(Node(host, int(port)).pid is None for host, port in nodes):
            pytest.skip("the cluster's workers are not on this machine")
    _replace(collection, vectors, ids, 0.3)
    share, files = _dead(collection), _files(collection)
    for place in places:
        with psycopg.connect(**own | place) as session, psycopg.connect(**own | place) as other:
            os.kill(session.info.backend_pid, signal.SIGKILL)  # of one backend: the postmaster ends all and recovers
            wait_for(lambda other=other: _is_down(other), what="the end of all sessions")
    wait_for(lambda: _is_up_again(collection.space.table), what="the recovery")
    assert share > 0.15 and _dead(collection) == 0, "all forgotten"
    assert _tend(collection), "and seen again"
    assert _dead(collection) == 0 and not set(_files(collection)) & set(files)
    assert not any(part.forgotten for part in parts_of(collection.space.table))


def _is_down(session: psycopg.Connection) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.Error:
        return True
    return False


def _is_up_again(table: str) -> bool:
    for each in connections.all():
        each.close()
    try:
        for alias in ("owner", "default"):
            with connections[alias].cursor() as cursor:
                cursor.execute(f"SELECT count(*) FROM {table}")  # of all nodes
    except DatabaseError:
        return False
    return True


def test_no_search_waits_to_be_told_of_dead_entries(
    filled: tuple[Collection, Floats, list[UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, vectors, ids = filled
    table = collection.space.table
    _replace(collection, vectors, ids, 0.3)
    monkeypatch.setattr(index_care, "LOOKED_AT_SECONDS", 0)
    with psycopg.connect(**connections["owner"].get_connection_params()) as busy:
        busy.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")  # how large it is, is not told before this ends
        assert index_care.dead_share(collection.space) == 0
        if engine_for(connection).name == "postgres":  # (a cluster's shards are not locked with their table)
            time.sleep(0.5)
            assert index_care.dead_share(collection.space) == 0 and table in index_care._looking
    wait_for(lambda: 0.15 < index_care.dead_share(collection.space) < 0.35, what="the statistics")


def test_an_interrupted_build_does_not_end_the_care_of_others_and_what_it_has_left_is_removed(
    tenant: Tenant, filled: tuple[Collection, Floats, list[UUID]], caplog: pytest.LogCaptureFixture
) -> None:
    with _another_filled(tenant) as another:
        both = [filled[0], another[0]]
        for collection, vectors, ids in (filled, another):
            _replace(collection, vectors, ids, 0.3)
        with _another() as writer:
            for collection in both:
                _lock(writer, collection)
            building = threading.Thread(target=_tend_and_close)
            building.start()
            wait_for(lambda: any(map(_waits, both)), what="the first build")
            first, second = sorted(both, key=_waits, reverse=True)
            owner = connections["owner"]
            cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index WHERE relid = '{}'::regclass"
            part = parts_of(first.space.table)[0]
            engine_for(owner).run(owner, part, cancel.format(part.name))
            wait_for(lambda: _waits(second) or not building.is_alive(), what="the second build")
            writer.commit()
            building.join(60)
        assert "cancel" in caplog.text and len(parts_of(first.space.table)[0].broken) == 1
        assert _dead(second) == 0 < _dead(first)
        index_care.tend()
        assert not parts_of(first.space.table)[0].broken and _dead(first) == 0


def test_two_do_not_build_the_same(filled: tuple[Collection, Floats, list[UUID]]) -> None:
    collection, vectors, ids = filled
    _replace(collection, vectors, ids, 0.3)
    with _another() as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [vector_index.index_name(collection.space)])
        assert not _tend(collection)
    wait_for(lambda: _tend(collection), seconds=10, what="the lock")


def test_a_load_that_ends_meanwhile_waits_for_the_build(filled: tuple[Collection, Floats, list[UUID]]) -> None:
    """And neither is ended as the victim of a deadlock."""
    collection, vectors, ids = filled
    _replace(collection, vectors, ids, 0.3)
    failed: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)
        finally:
            for each in connections.all():
                each.close()

    with _another() as writer:
        _lock(writer, collection)
        building = threading.Thread(target=run, args=(index_care.tend,))
        building.start()
        wait_for(lambda: _waits(collection), what="the build")
        loading = threading.Thread(target=run, args=(lambda: vector_index.ensure_index(collection.space),))
        loading.start()
        time.sleep(2.5)  # PostgreSQL looks for deadlocks after one second
        assert building.is_alive() and loading.is_alive() and not failed
        writer.commit()
    building.join(60)
    loading.join(60)
    assert not building.is_alive() and not loading.is_alive() and not failed


def test_searches_and_writes_go_on_while_it_is_built(filled: tuple[Collection, Floats, list[UUID]]) -> None:
    """A build that waits for a writer holds up neither searches nor other writers."""
    collection, vectors, ids = filled
    _replace(collection, vectors, ids, 0.3)
    with _another() as writer:
        _lock(writer, collection)
        building = threading.Thread(target=_tend_and_close)
        building.start()
        wait_for(lambda: _waits(collection), what="the build")
        started = time.monotonic()
        assert _found(collection, vectors[0])[0]
        with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
            cursor.execute(f"UPDATE {collection.space.table} SET live = live WHERE document_id = %s", [ids[1]])
        assert time.monotonic() - started < 5 and building.is_alive()
        writer.commit()
    building.join(60)
    assert not building.is_alive() and _dead(collection) < 0.1


def _another() -> psycopg.Connection:
    """A session of the application beside the test's own."""
    return psycopg.connect(**connections["default"].get_connection_params())


def _lock(writer: psycopg.Connection, collection: Collection) -> None:
    """Every partition, as one who writes holds it, until the transaction ends."""
    writer.execute(f"UPDATE {collection.space.table} SET live = live WHERE chunk_id = %s", [uuid4()])


def _waits(collection: Collection) -> bool:
    """Does a build wait for the writer?"""
    return any((part.phase or "").startswith("waiting for writers") for part in parts_of(collection.space.table))


def _tend_and_close() -> None:
    try:
        index_care.tend()
    finally:
        for each in connections.all():
            each.close()


def _lists(collection: Collection) -> set[str]:
    """Of the space's indexes, as PostgreSQL has them."""
    return {options for _, options in indexes_of(collection.space.table)}


def test_lists_are_made_anew_when_the_rows_have_grown(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the first ones when there are rows. Searches and writes go on meanwhile."""
    monkeypatch.setattr(vector_index, "ROWS_PER_LIST", 20)
    monkeypatch.setattr(index_care, "FEWEST_ROWS", 50)
    slug = f"lists-{uuid4().hex[:8]}"
    spaces.create(slug=slug, backend="fake", model="fake", dimensions=64, index_method="ivfflat")
    collection = make_collection(tenant, space=slug, slug=slug)
    vectors, ids = _vectors(ROWS, 1), [uuid4() for _ in range(ROWS)]

    def tended() -> bool:
        done = slug in index_care.tend_lists()
        collection.space.refresh_from_db()
        return done

    assert not tended() and not vector_index.is_indexed(collection.space)  # nothing to make centroids of
    _fill(collection, vectors[:400], ids[:400])
    assert tended() and not tended()
    few = collection.space.index_parameters["lists"]
    assert _lists(collection) == {f"lists={few}"}
    _fill(collection, vectors[400:], ids[400:])

    failures, over = [], threading.Event()

    def write() -> None:
        try:
            while not over.wait(0.01):
                with tenancy.scope(tenant.id), connection.cursor() as cursor:
                    far = [uuid4(), uuid4(), tenant.id, collection.id, vector_text(-vectors[0])]
                    cursor.execute(f"INSERT INTO {collection.space.table} VALUES (%s, %s, %s, %s, true, %s)", far)
        except Exception as error:
            failures.append(error)
        finally:
            connections.close_all()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert tended() and not tended()
    finally:
        over.set()
        writer.join()
    many = collection.space.index_parameters["lists"]
    assert not failures and many > 4 * few and _lists(collection) == {f"lists={many}"}
    assert vector_index.is_indexed(collection.space)
    assert _recall(collection, vectors, ids) > 0.9
