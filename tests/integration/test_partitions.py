"""`manage.py partitions`: what is where, and an index built anew by a process that may be killed, under load."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import partitions, spaces, vector_index
from apps.documents.engines import engine_for
from apps.documents.models import Collection, EmbeddingSpace
from tests.conftest import make_collection
from tests.integration.test_spaces import ROWS, Floats, K, _exact, _fill, _found, _vectors
from tests.support.processes import Process, wait_for

Filled = tuple[Collection, Floats, list[UUID]]


@pytest.fixture
def filled(tenant: Tenant) -> Filled:
    return _filled(tenant, "hnsw")


def _filled(tenant: Tenant, method: str) -> Filled:
    """A collection of ROWS vectors in a space of its own."""
    if engine_for(connection).name != "postgres":
        pytest.skip("a cluster builds the indexes of all its shards at once")
    slug = f"parts-{uuid4().hex[:8]}"
    space = spaces.create(slug=slug, backend="fake", model="fake", dimensions=64, index_method=method)
    collection = make_collection(tenant, space=space.slug, slug=slug)
    vectors, ids = _vectors(ROWS, 1), [uuid4() for _ in range(ROWS)]
    _fill(collection, vectors, ids)
    return collection, vectors, ids


def _leaves(collection: Collection) -> list[str]:
    return engine_for(connection).partitions(connection, collection.space.table)


def _indexes(collection: Collection) -> dict[str, tuple[int, bool, bool]]:
    """{partition: (its vector index's file, is it valid, is it part of the one over all)}; one index each."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            "SELECT x.indrelid::regclass::text, pg_relation_filenode(i.oid), x.indisvalid, i.relispartition"
            " FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam"
            " WHERE x.indrelid = ANY(%s::regclass[]) AND a.amname IN ('hnsw', 'ivfflat')",
            [_leaves(collection)],
        )
        rows = cursor.fetchall()
    found = {leaf: (file, valid, attached) for leaf, file, valid, attached in rows}
    assert len(found) == len(rows), "something of an interrupted build is left"
    return found


def _assert_whole(collection: Collection, vectors: Floats, ids: list[UUID]) -> None:
    found = _indexes(collection)
    assert set(found) == set(_leaves(collection))
    assert all(valid and attached for _, valid, attached in found.values())
    assert vector_index.is_indexed(collection.space)
    asked = _vectors(25, 9)
    recall = [len(_found(collection, each)[0] & _exact(vectors, ids, "cosine", each)) / K for each in asked]
    assert np.mean(recall) >= 0.95


def _command(*arguments: str) -> str:
    out = io.StringIO()
    call_command("partitions", *arguments, stdout=out)
    return out.getvalue()


def _status(collection: Collection) -> list[dict[str, Any]]:
    found = json.loads(_command("status", "--json"))
    return next(each["partitions"] for each in found if each["space"] == collection.space.slug)


@contextmanager
def _written_to(leaf: str) -> Iterator[psycopg.Connection]:
    """Someone who has written to this partition, and does not commit: what builds its index waits."""
    with psycopg.connect(**connections["owner"].get_connection_params()) as writer:
        writer.execute(f"LOCK TABLE {leaf} IN ROW EXCLUSIVE MODE")
        yield writer


@contextmanager
def _load(collection: Collection, vectors: Floats, ids: list[UUID]) -> Iterator[dict[str, int]]:
    """Searches and writes while the block runs: how many there were. None may fail."""
    over, failed, done = threading.Event(), [], {"searches": 0, "writes": 0}

    def again(name: str, act: Callable[[int], None]) -> None:
        try:
            while not over.is_set():
                act(done[name])
                done[name] += 1
        except BaseException as error:
            failed.append(error)
        finally:
            connections.close_all()

    def search(number: int) -> None:
        assert len(_found(collection, vectors[number % ROWS])[0]) == K

    def write(number: int) -> None:
        with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
            key = ids[number % ROWS]
            cursor.execute(f"UPDATE {collection.space.table} SET live = live WHERE document_id = %s", [key])
            assert cursor.rowcount == 1

    threads = [threading.Thread(target=again, args=each) for each in (("searches", search), ("writes", write))]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failed, failed


def _rebuilding(tmp_path: Path, collection: Collection, *more: str) -> Process:
    argv = ("manage", "partitions", "rebuild-index", collection.space.slug, *more)
    return Process(tmp_path, f"rebuild-{uuid4().hex[:4]}", *argv)


def test_status_shows_each_partition_of_all_tables(filled: Filled) -> None:
    collection, _, _ = filled
    parts = _status(collection)
    assert [part["name"] for part in parts] == _leaves(collection)
    assert sum(part["rows"] for part in parts) == ROWS
    for part in parts:
        assert part["method"] == "hnsw" and part["valid"] and part["index_bytes"] > 0 and part["phase"] is None
        assert part["table_bytes"] > 0 and part["indexes_bytes"] > part["index_bytes"]
    told = _command("status").splitlines()
    assert told[0].split()[:3] == ["space", "partition", "rows"]
    mine = [line.split() for line in told if line.startswith(collection.space.slug)]
    assert [line[1] for line in mine] == _leaves(collection) and all(line[-1] == "valid" for line in mine)
    for table in partitions.TABLES:
        assert any(line.split()[1].startswith(table + "_p") for line in told[1:]), table


def test_status_tells_of_dead_entries_and_of_an_index_that_is_not_there(filled: Filled) -> None:
    collection, _, ids = filled
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {collection.space.table} WHERE chunk_id = ANY(%s)", [ids[: ROWS // 4]])
        cursor.execute("SELECT pg_stat_force_next_flush()")
    dead = sum(part["dead"] for part in _status(collection))
    assert dead == ROWS // 4
    with connections["owner"].cursor() as cursor:
        cursor.execute(f"DROP INDEX {vector_index.index_name(collection.space)}")
    assert [part["method"] for part in _status(collection)] == [None] * len(_leaves(collection))
    mine = [line for line in _command("status").splitlines() if line.startswith(collection.space.slug)]
    assert all(line.endswith("missing") for line in mine)


def test_all_partitions_are_built_anew_while_searches_and_writes_go_on(tmp_path: Path, filled: Filled) -> None:
    collection, vectors, ids = filled
    before = _indexes(collection)
    with _load(collection, vectors, ids) as done, _rebuilding(tmp_path, collection) as running:
        assert running.process.wait(120) == 0, running.log.read_text()
    assert done["searches"] > 10 and done["writes"] > 10
    after = _indexes(collection)
    assert all(after[leaf][0] != before[leaf][0] for leaf in before)
    _assert_whole(collection, vectors, ids)
    assert not any(part["mark"] for part in _status(collection))
    assert f"built {len(before)} anew" in running.log.read_text()


def test_killed_in_the_middle_it_goes_on_with_the_partitions_that_are_left(tmp_path: Path, filled: Filled) -> None:
    collection, vectors, ids = filled
    leaves, before = _leaves(collection), _indexes(collection)
    with _load(collection, vectors, ids):
        with _written_to(leaves[2]), _rebuilding(tmp_path, collection) as running:
            wait_for(lambda: "waiting for writers" in running.log.read_text(), what="the third partition")
            third = _status(collection)[2]
            assert third["phase"] == "waiting for writers before build" and third["mark"] == partitions.MARK
            running.kill()
            wait_for(lambda: not _builds(collection), seconds=20, what="PostgreSQL to give the build up")
        with connections["owner"].cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass AND NOT indisvalid", [leaves[2]]
            )
            assert cursor.fetchone()[0] == 1, "it was killed in the middle of one"
        assert [part["mark"] for part in _status(collection)] == ["", "", partitions.MARK, partitions.MARK]
        with _rebuilding(tmp_path, collection) as running:
            assert running.process.wait(120) == 0, running.log.read_text()
    told = running.log.read_text()
    assert "2 of 4 were left by a build that was interrupted" in told and "built 2 anew" in told
    after = _indexes(collection)
    assert all(after[leaf][0] != before[leaf][0] for leaf in leaves)
    _assert_whole(collection, vectors, ids)
    assert not any(part["mark"] for part in _status(collection))


def test_what_is_done_is_not_done_again(filled: Filled) -> None:
    collection, vectors, ids = filled
    leaves, killed = _leaves(collection), "now"

    class Killed(BaseException):
        pass

    def told(line: str) -> None:
        if line.startswith(f"{leaves[2]}: 3 of 4"):
            raise Killed(killed)

    with pytest.raises(Killed):
        partitions.rebuild(collection.space, told=told)
    between = _indexes(collection)
    assert partitions.rebuild(collection.space) == leaves[2:]
    after = _indexes(collection)
    assert [after[leaf][0] == between[leaf][0] for leaf in leaves] == [True, True, False, False]
    _assert_whole(collection, vectors, ids)
    assert partitions.rebuild(collection.space) == leaves, "nothing is left: all of them"


def test_an_index_that_is_missing_is_built_in_parts_and_put_over_all(tmp_path: Path, filled: Filled) -> None:
    collection, vectors, ids = filled
    leaves = _leaves(collection)
    with connections["owner"].cursor() as cursor:
        cursor.execute(f"DROP INDEX {vector_index.index_name(collection.space)}")
    assert partitions.rebuild(collection.space, number=3) == leaves[3:]
    assert not vector_index.is_indexed(collection.space), "three have none"
    first = _indexes(collection)[leaves[3]]
    with _written_to(leaves[1]), _rebuilding(tmp_path, collection) as running:
        wait_for(lambda: "waiting for writers" in running.log.read_text(), what="the second partition")
        running.kill()
        wait_for(lambda: not _builds(collection), seconds=20, what="PostgreSQL to give the build up")
    with _rebuilding(tmp_path, collection) as running:
        assert running.process.wait(120) == 0, running.log.read_text()
    assert "2 of 4 were left" in running.log.read_text() and "is over all partitions now" in running.log.read_text()
    assert _indexes(collection)[leaves[3]][:2] == first[:2]
    _assert_whole(collection, vectors, ids)


def test_one_partition_alone_is_built(filled: Filled) -> None:
    collection, vectors, ids = filled
    leaves, before = _leaves(collection), _indexes(collection)
    assert "built 1 anew" in _command("rebuild-index", collection.space.slug, "--partition", "1")
    after = _indexes(collection)
    assert [leaf for leaf in leaves if after[leaf][0] != before[leaf][0]] == [leaves[1]]
    _assert_whole(collection, vectors, ids)
    with pytest.raises(CommandError, match="has the partitions 0 to 3, not 4"):
        _command("rebuild-index", collection.space.slug, "--partition", "4")
    with pytest.raises(CommandError, match="there is no space 'nowhere'"):
        _command("rebuild-index", "nowhere")


def test_lists_of_ivfflat_follow_the_rows(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    collection, vectors, ids = _filled(tenant, "ivfflat")
    for lists in (12, 5):  # a thousand rows have one
        monkeypatch.setattr(vector_index, "lists_of", lambda connection, space, lists=lists: lists)
        assert partitions.rebuild(collection.space) == _leaves(collection)
        kept = EmbeddingSpace.objects.get(id=collection.space.id)
        assert kept.index_parameters == {"lists": lists}
        assert _options(collection) == {f"lists={lists}"}
        collection.space = kept
        _assert_whole(collection, vectors, ids)


def test_two_do_not_build_at_once(tmp_path: Path, filled: Filled) -> None:
    collection, vectors, ids = filled
    with _written_to(_leaves(collection)[0]) as writer, _rebuilding(tmp_path, collection) as one:
        wait_for(lambda: "waiting for writers" in one.log.read_text(), what="the first")
        with _rebuilding(tmp_path, collection) as two:
            wait_for(lambda: "another process is at the index" in two.log.read_text(), what="the second")
            writer.commit()
            assert one.process.wait(60) == 0 and two.process.wait(60) == 0, two.log.read_text()
    _assert_whole(collection, vectors, ids)


def _options(collection: Collection) -> set[str]:
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT array_to_string(i.reloptions, ',') FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
            " JOIN pg_am a ON a.oid = i.relam WHERE x.indrelid = ANY(%s::regclass[]) AND a.amname = 'ivfflat'",
            [_leaves(collection)],
        )
        return {row[0] for row in cursor.fetchall()}


def _builds(collection: Collection) -> int:
    """Sessions that build an index of the collection's space."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query ~ %s AND pid <> pg_backend_pid()",
            [f"^(CREATE INDEX|REINDEX).*{collection.space.table}"],
        )
        return cursor.fetchone()[0]
