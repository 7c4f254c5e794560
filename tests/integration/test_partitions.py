"""`manage.py partitions`: what is where, and an index built anew by a process that may be killed, under load."""

from __future__ import annotations

import io
import json
import os
import re
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
from tests.support.parts import indexes_of, parts_of
from tests.support.processes import Process, wait_for

Filled = tuple[Collection, Floats, list[UUID]]


@pytest.fixture
def filled(tenant: Tenant) -> Filled:
    return _filled(tenant, "hnsw")


def _filled(tenant: Tenant, method: str) -> Filled:
    """A collection of ROWS vectors in a space of its own."""
    slug = f"parts-{uuid4().hex[:8]}"
    space = spaces.create(slug=slug, backend="fake", model="fake", dimensions=64, index_method=method)
    collection = make_collection(tenant, space=space.slug, slug=slug)
    vectors, ids = _vectors(ROWS, 1), [uuid4() for _ in range(ROWS)]
    _fill(collection, vectors, ids)
    return collection, vectors, ids


def _leaves(collection: Collection) -> list[str]:
    return [part.name for part in parts_of(collection.space.table)]


def _files(collection: Collection) -> dict[str, int]:
    """{partition: the file of its vector index}; one each."""
    found = indexes_of(collection.space.table)
    return {leaf: file for leaf, (file, _) in zip(_leaves(collection), found, strict=True)}


def _assert_whole(collection: Collection, vectors: Floats, ids: list[UUID]) -> None:
    assert len(_files(collection)) == len(_leaves(collection)) > 3
    assert all(part.valid for part in parts_of(collection.space.table))
    assert vector_index.is_indexed(collection.space), "one is over all of them"
    asked = _vectors(25, 9)
    recall = [len(_found(collection, each)[0] & _exact(vectors, ids, "cosine", each)) / K for each in asked]
    assert np.mean(recall) >= 0.95


def _drop_index(collection: Collection) -> None:
    with connections["owner"].cursor() as cursor:
        cursor.execute(f"DROP INDEX {vector_index.index_name(collection.space)}")


def _command(*arguments: str) -> str:
    out = io.StringIO()
    call_command("partitions", *arguments, stdout=out)
    return out.getvalue()


def _status(collection: Collection) -> list[dict[str, Any]]:
    found = json.loads(_command("status", "--json"))
    return next(each["partitions"] for each in found if each["space"] == collection.space.slug)


@contextmanager
def _written_to(collection: Collection, number: int) -> Iterator[psycopg.Connection]:
    """Someone who has written to this partition, and does not commit: what builds its index waits."""
    with psycopg.connect(**connections["owner"].get_connection_params()) as writer:
        key = _key_in(collection, number)
        writer.execute(f"UPDATE {collection.space.table} SET live = live WHERE document_id = %s", [key])
        yield writer


def _key_in(collection: Collection, number: int) -> UUID:
    """A document's id whose rows are in this partition."""
    table, parts = collection.space.table, parts_of(collection.space.table)
    if parts[0].node:
        question = "SELECT get_shard_id_for_distribution_column(%s::regclass, %s::uuid) = %s"
        rest = [int(parts[number].name.rpartition("_")[2])]
    else:
        question = f"SELECT satisfies_hash_partition(%s::regclass, {len(parts)}, {number}, %s::uuid)"
        rest = []
    with connections["owner"].cursor() as cursor:
        while True:
            key = uuid4()
            cursor.execute(question, [table, key, *rest])
            if cursor.fetchone()[0]:
                return key


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


def _counted(collection: Collection) -> list[dict[str, Any]]:
    with connections["owner"].cursor() as cursor:
        cursor.execute(f"ANALYZE {collection.space.table}")
    return _status(collection)


@pytest.mark.parametrize("processors", [None, 1, 5])
def test_a_build_takes_half_of_the_processors_or_as_many_as_one_says(filled: Filled, processors: int | None) -> None:
    def workers() -> int:
        with connections["owner"].cursor() as cursor:
            cursor.execute("SHOW max_parallel_maintenance_workers")
            return int(cursor.fetchone()[0])

    before = workers()
    with vector_index.building(connections["owner"], filled[0].space, processors=processors):
        assert workers() == (processors or max(1, (os.cpu_count() or 1) // 2)) - 1  # beside the session itself
    assert workers() == before


def test_status_shows_each_partition_of_all_tables(filled: Filled) -> None:
    collection, _, _ = filled
    parts = _status(collection)
    assert [part["name"] for part in parts] == _leaves(collection)
    assert wait_for(lambda: sum(part["rows"] for part in _counted(collection)) == ROWS, what="the statistics")
    for part in parts:
        assert part["method"] == "hnsw" and part["valid"] and part["index_bytes"] > 0 and part["phase"] is None
        assert part["table_bytes"] > 0 and part["indexes_bytes"] > part["index_bytes"]
    told = _command("status").splitlines()
    assert told[0].split()[:3] == ["space", "partition", "rows"]
    mine = [line.split() for line in told if line.startswith(collection.space.slug)]
    assert [line[1] for line in mine] == _leaves(collection) and all(line[-1] == "valid" for line in mine)
    for table in partitions.TABLES:
        assert any(re.match(rf"{table}_p?\d+$", line.split()[1]) for line in told[1:]), table


def test_status_tells_of_dead_entries_and_of_an_index_that_is_not_there(filled: Filled) -> None:
    collection, _, ids = filled
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {collection.space.table} WHERE chunk_id = ANY(%s)", [ids[: ROWS // 4]])
    wait_for(lambda: sum(part["dead"] for part in _counted(collection)) == ROWS // 4, what="the statistics")
    _drop_index(collection)
    assert [part["method"] for part in _status(collection)] == [None] * len(_leaves(collection))
    mine = [line for line in _command("status").splitlines() if line.startswith(collection.space.slug)]
    assert all(line.endswith("missing") for line in mine)


def test_all_partitions_are_built_anew_while_searches_and_writes_go_on(tmp_path: Path, filled: Filled) -> None:
    collection, vectors, ids = filled
    before = _files(collection)
    with _load(collection, vectors, ids) as done, _rebuilding(tmp_path, collection) as running:
        assert running.process.wait(120) == 0, running.log.read_text()
    assert done["searches"] > 10 and done["writes"] > 10
    after = _files(collection)
    assert all(after[leaf] != before[leaf] for leaf in before)
    _assert_whole(collection, vectors, ids)
    assert not any(part["mark"] for part in _status(collection))
    assert f"built {len(before)} anew" in running.log.read_text()


def test_killed_in_the_middle_it_goes_on_with_the_partitions_that_are_left(tmp_path: Path, filled: Filled) -> None:
    collection, vectors, ids = filled
    leaves, before = _leaves(collection), _files(collection)
    with _load(collection, vectors, ids):
        with _written_to(collection, 2), _rebuilding(tmp_path, collection) as running:
            wait_for(lambda: "waiting for writers" in running.log.read_text(), what="the third partition")
            third = _status(collection)[2]
            assert third["phase"] == "waiting for writers before build" and third["mark"] == partitions.MARK
            running.kill()
            _given_up(collection)
            assert len(_status(collection)[2]["broken"]) == 1, "it was killed in the middle of one"
        left = [partitions.MARK] * (len(leaves) - 2)
        assert [part["mark"] for part in _status(collection)] == ["", "", *left]
        with _rebuilding(tmp_path, collection) as running:
            assert running.process.wait(120) == 0, running.log.read_text()
    told = running.log.read_text()
    assert f"{len(left)} of {len(leaves)} were left by a build that was interrupted" in told
    assert f"built {len(left)} anew" in told
    after = _files(collection)
    assert all(after[leaf] != before[leaf] for leaf in leaves)
    _assert_whole(collection, vectors, ids)
    assert not any(part["mark"] for part in _status(collection))


@pytest.mark.parametrize("first", [True, False])
def test_what_a_killed_build_left_is_not_taken_for_the_index_of_the_next(
    tmp_path: Path, filled: Filled, first: bool
) -> None:
    """A load takes the index away and brings it back, migrations bring it back where it is missing: CREATE INDEX over
    all partitions would adopt what is not valid, and build nothing there."""
    collection, vectors, ids = filled
    if first:
        _drop_index(collection)
    with _written_to(collection, 1), _rebuilding(tmp_path, collection) as running:
        wait_for(lambda: "waiting for writers" in running.log.read_text(), what="a build")
        running.kill()
        _given_up(collection)
    if first and engine_for(connection).name == "citus":  # it waits for writers before it begins with any shard
        assert _not_valid(collection)
    else:
        assert any(part["broken"] for part in _status(collection))
    if not first:
        _drop_index(collection)
    vector_index.ensure_index(collection.space)
    assert not any(part["broken"] for part in _status(collection))
    _assert_whole(collection, vectors, ids)


def test_an_index_over_all_that_is_not_valid_is_built_anew(tmp_path: Path, filled: Filled) -> None:
    collection, vectors, ids = filled
    if engine_for(connection).name == "citus":
        pytest.skip("shards are no partitions: no index is over them")
    _drop_index(collection)
    with _written_to(collection, 1), _rebuilding(tmp_path, collection) as running:
        wait_for(lambda: "waiting for writers" in running.log.read_text(), what="a build")
        running.kill()
        _given_up(collection)
    space = collection.space
    with connections["owner"].cursor() as cursor:
        cursor.execute(vector_index.index_sql(space, space.table, name=vector_index.index_name(space)))
    assert not vector_index.is_indexed(space), "it took the one that is not valid"
    assert partitions.rebuild(space) == _leaves(collection)
    _assert_whole(collection, vectors, ids)


def test_searches_and_writes_go_on_while_a_space_is_indexed_anew(tmp_path: Path, filled: Filled) -> None:
    collection, vectors, ids = filled
    before = _files(collection)
    argv = ("manage", "space", "index", collection.space.slug)
    with _written_to(collection, 1) as writer, Process(tmp_path, "index", *argv) as running:
        wait_for(lambda: "waiting for writers" in running.log.read_text(), what="the build")
        with _load(collection, vectors, ids) as done:
            wait_for(lambda: done["searches"] > 3 and done["writes"] > 3, seconds=5, what="searches and writes")
        writer.commit()
        assert running.process.wait(120) == 0, running.log.read_text()
    assert all(file != before[leaf] for leaf, file in _files(collection).items())
    _assert_whole(collection, vectors, ids)


def test_what_is_done_is_not_done_again(filled: Filled) -> None:
    collection, vectors, ids = filled
    leaves, killed = _leaves(collection), "now"

    class Killed(BaseException):
        pass

    def told(line: str) -> None:
        if line.startswith(f"{leaves[2]}: 3 of "):
            raise Killed(killed)

    with pytest.raises(Killed):
        partitions.rebuild(collection.space, told=told)
    between = _files(collection)
    assert partitions.rebuild(collection.space) == leaves[2:]
    after = _files(collection)
    assert [leaf for leaf in leaves if after[leaf] == between[leaf]] == leaves[:2]
    _assert_whole(collection, vectors, ids)
    assert partitions.rebuild(collection.space) == leaves, "nothing is left: all of them"


def test_an_index_that_is_missing_is_built_in_parts_and_put_over_all(tmp_path: Path, filled: Filled) -> None:
    collection, vectors, ids = filled
    if engine_for(connection).name == "citus":
        pytest.skip("a cluster makes the first index of all its shards by one statement: see the next test")
    leaves = _leaves(collection)
    _drop_index(collection)
    assert partitions.rebuild(collection.space, number=3) == leaves[3:]
    assert not vector_index.is_indexed(collection.space), "three have none"
    [first] = [part.index for part in parts_of(collection.space.table) if part.valid]
    with _written_to(collection, 1), _rebuilding(tmp_path, collection) as running:
        wait_for(lambda: "waiting for writers" in running.log.read_text(), what="the second partition")
        running.kill()
        _given_up(collection)
    with _rebuilding(tmp_path, collection) as running:
        assert running.process.wait(120) == 0, running.log.read_text()
    assert "2 of 4 were left" in running.log.read_text() and "is over all partitions now" in running.log.read_text()
    assert parts_of(collection.space.table)[3].index == first
    _assert_whole(collection, vectors, ids)


def test_a_first_index_whose_build_was_killed_is_built_by_the_next(tmp_path: Path, filled: Filled) -> None:
    collection, vectors, ids = filled
    _drop_index(collection)
    with _written_to(collection, 1), _rebuilding(tmp_path, collection) as running:
        wait_for(lambda: "waiting for writers" in running.log.read_text(), what="a build")
        running.kill()
        _given_up(collection)
    assert not vector_index.is_indexed(collection.space)
    assert partitions.rebuild(collection.space)
    _assert_whole(collection, vectors, ids)


def test_one_partition_alone_is_built(filled: Filled) -> None:
    collection, vectors, ids = filled
    leaves, before = _leaves(collection), _files(collection)
    assert "built 1 anew" in _command("rebuild-index", collection.space.slug, "--partition", "1")
    after = _files(collection)
    assert [leaf for leaf in leaves if after[leaf] != before[leaf]] == [leaves[1]]
    _assert_whole(collection, vectors, ids)
    with pytest.raises(CommandError, match=f"has the partitions 0 to {len(leaves) - 1}, not {len(leaves)}"):
        _command("rebuild-index", collection.space.slug, "--partition", str(len(leaves)))
    with pytest.raises(CommandError, match="there is no space 'nowhere'"):
        _command("rebuild-index", "nowhere")
    with pytest.raises(CommandError, match="with -5 processors"):
        _command("rebuild-index", collection.space.slug, "--processors", "-5")


def test_lists_of_ivfflat_follow_the_rows(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    collection, vectors, ids = _filled(tenant, "ivfflat")
    for lists in (12, 5):  # a thousand rows have one
        monkeypatch.setattr(vector_index, "lists_of", lambda connection, space, lists=lists: lists)
        assert partitions.rebuild(collection.space) in (_leaves(collection), [collection.space.table])
        kept = EmbeddingSpace.objects.get(id=collection.space.id)
        assert kept.index_parameters == {"lists": lists}
        assert {options for _, options in indexes_of(collection.space.table)} == {f"lists={lists}"}
        collection.space = kept
        _assert_whole(collection, vectors, ids)


def test_a_node_that_cannot_be_asked_is_told_and_left_out(filled: Filled) -> None:
    collection, vectors, ids = filled
    leaves, before, owner = parts_of(collection.space.table), _files(collection), connections["owner"]
    if not (node := leaves[0].node):
        pytest.skip("one Postgres has no nodes")
    there = [part.name for part in leaves if part.node != node]
    host, _, port = node.rpartition(":")
    at_node = {**owner.get_connection_params(), "host": host, "port": port}
    with psycopg.connect(**at_node, autocommit=True) as session:
        session.execute("SET citus.enable_ddl_propagation = off")
        limit = f'ALTER DATABASE "{owner.settings_dict["NAME"]}" CONNECTION LIMIT'
        session.execute(f"{limit} 0")
        try:
            away = [part for part in _status(collection) if part["node"] == node]
            assert len(away) == len(leaves) - len(there) and all(f"{host}:{port}" in each["problem"] for each in away)
            told: list[str] = []
            assert partitions.rebuild(collection.space, told=told.append) == there
            assert sum("is left out" in line for line in told) == len(away)
        finally:
            session.execute(f"{limit} -1")
    after = _files(collection)
    assert {leaf for leaf in after if after[leaf] != before[leaf]} == set(there)
    _assert_whole(collection, vectors, ids)


def test_two_do_not_build_at_once(tmp_path: Path, filled: Filled) -> None:
    collection, vectors, ids = filled
    with _written_to(collection, 0) as writer, _rebuilding(tmp_path, collection) as one:
        wait_for(lambda: "waiting for writers" in one.log.read_text(), what="the first")
        with _rebuilding(tmp_path, collection) as two:
            wait_for(lambda: "another process is at the index" in two.log.read_text(), what="the second")
            writer.commit()
            assert one.process.wait(60) == 0 and two.process.wait(60) == 0, two.log.read_text()
    _assert_whole(collection, vectors, ids)


def _not_valid(collection: Collection) -> list[str]:
    """Of the table itself."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass AND NOT indisvalid",
            [collection.space.table],
        )
        return [name for (name,) in cursor.fetchall()]


def _given_up(collection: Collection) -> None:
    """PostgreSQL ends what was built for a process that is gone. A cluster would come to the end of it, once nobody
    writes: there it is ended, on the coordinator first."""
    table, own = collection.space.table, connections["owner"].get_connection_params()
    if nodes := {part.node for part in parts_of(table)} - {""}:
        build = f"state = 'active' AND query ~ 'INDEX.*{table}' AND pid <> pg_backend_pid()"
        for place in [
            {},
            *({"host": host, "port": port} for host, _, port in (node.rpartition(":") for node in nodes)),
        ]:
            with psycopg.connect(**own | place) as session:
                session.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {build}")
    wait_for(lambda: not any(part.phase for part in parts_of(table)), what="the end of the build")
