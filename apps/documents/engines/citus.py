"""A Citus cluster: tables distributed by the document, co-located, so that one document lives on one node."""

from __future__ import annotations

import json
from collections.abc import Sequence

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.utils import CursorWrapper
from psycopg import sql

from .base import PARTS, Part

ANCHOR = "documents_document"


class CitusEngine:
    """Distributed tables; the shards are the partitions (one level only).

    Order matters: documents first, then each table that hangs on it, co-located. Foreign keys are added after that,
    which Django's deferred SQL does by itself. Small tables stay on the coordinator: as reference tables every publish
    would write its collection's epoch on all nodes, one publish of the whole cluster at a time.
    """

    name = "citus"
    batch = 1  # rows of one known document only can be locked
    whole_snapshots = False  # the coordinator's rows may be seen before those of a shard
    # Citus moves a shard to another node as its owner: who sees no rows copies none, and the old shard is dropped.
    forced_walls = False

    def __init__(self) -> None:
        self.found: int | None = None

    def create_sharded(
        self,
        editor: BaseDatabaseSchemaEditor,
        create_sql: str,
        table: str,
        key: str,
        *,
        before_spreading: Sequence[str] = (),
        parameters: str = "",
    ) -> None:
        _one_connection_per_node(editor)
        editor.execute(create_sql, params=None)
        if parameters:
            editor.execute(f'ALTER TABLE "{table}" SET ({parameters})', params=None)
        for statement in before_spreading:
            editor.execute(statement, params=None)
        beside = "" if table == ANCHOR else f", colocate_with => '{ANCHOR}'"
        editor.execute(f"SELECT create_distributed_table('{table}', '{key}'{beside})", params=None)

    def create_beside(self, editor: BaseDatabaseSchemaEditor, table: str) -> None:
        # A table that Citus does not know is committed after the worker written to, not with it: a crash in between
        # would keep a document and lose its job. A write to one that it manages makes the workers prepare first.
        _one_connection_per_node(editor)
        editor.execute(
            f"SELECT citus_add_local_table_to_metadata('{table}', cascade_via_foreign_keys => true)", params=None
        )

    def partitions(self, connection: BaseDatabaseWrapper, table: str) -> list[str]:
        return [table]

    def rows(self, connection: BaseDatabaseWrapper, table: str) -> int:
        fullest = "SELECT max(reltuples)::bigint FROM pg_class, unnest({names}::text[]) n WHERE oid = to_regclass(n)"
        return max((int(answer or 0) for _, _, answer, _ in _ask_nodes(connection, table, fullest)), default=0)

    def graphs(self, connection: BaseDatabaseWrapper) -> int:
        if self.found is None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = to_regclass(%s)", [ANCHOR])
                self.found = max(1, cursor.fetchone()[0])
        return self.found

    def parts(self, connection: BaseDatabaseWrapper, table: str) -> list[Part]:
        found: list[Part] = []
        for node, shards, answer, problem in _ask_nodes(connection, table, PARTS):
            for shard, part in zip(shards, json.loads(answer) if answer else [{}] * len(shards), strict=True):
                known = part if part.get("name") else {"name": shard, "problem": problem or "it is not there"}
                found.append(Part(**known, node=node))
        return sorted(found, key=lambda part: (len(part.name), part.name))

    def indexable(self, connection: BaseDatabaseWrapper, table: str) -> list[Part]:
        # As the coordinator sees it: empty, with an index that is valid once those of all shards are.
        with connection.cursor() as cursor:
            cursor.execute(PARTS.format(names="%s"), [[table]])
            return [Part(**part) for part in json.loads(cursor.fetchone()[0])]

    def run(self, connection: BaseDatabaseWrapper, part: Part, statement: str) -> None:
        with connection.cursor() as cursor:
            if _is_here(cursor, part):
                # Sent to ourselves, a build would wait for the snapshot of the statement that sends it.
                cursor.execute(statement)
                return
            host, _, port = part.node.rpartition(":")
            cursor.execute(
                "SELECT success, result FROM master_run_on_worker(ARRAY[%s], ARRAY[%s], ARRAY[%s], true)",
                [host, int(port), statement],
            )
            success, result = cursor.fetchone()
        if not success:
            raise OperationalError(f"{part.node}: {result}")

    def defined(self, index: str, parts: Sequence[Part]) -> list[str]:
        return [index]  # once for all shards, also for those that are moved later


def _is_here(cursor: CursorWrapper, part: Part) -> bool:
    """Is it the table itself, or a shard that the coordinator has?"""
    cursor.execute(
        "SELECT %(node)s = '' OR EXISTS (SELECT 1 FROM pg_dist_node JOIN pg_dist_local_group USING (groupid)"
        " WHERE nodename || ':' || nodeport = %(node)s)",
        {"node": part.node},
    )
    return bool(cursor.fetchone()[0])


def _ask_nodes(connection: BaseDatabaseWrapper, table: str, query: str) -> list[tuple[str, list[str], str | None, str]]:
    """Let each node answer a query about its shards of a table ({names}: an array of theirs): (node, its shards, the
    answer, None with the reason where it gave none)."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nodename, nodeport, array_agg(shard_name(logicalrelid, shardid)::text ORDER BY shardid)"
            " FROM pg_dist_shard JOIN pg_dist_shard_placement USING (shardid) WHERE logicalrelid = to_regclass(%s)"
            " GROUP BY nodename, nodeport ORDER BY nodename, nodeport",
            [table],
        )
        places = cursor.fetchall()
        cursor.execute(
            "SELECT success, result FROM master_run_on_worker(%s::text[], %s::int[], %s::text[], true)",
            [
                [host for host, _, _ in places],
                [port for _, port, _ in places],
                [query.format(names=sql.Literal(shards).as_string()) for _, _, shards in places],
            ],
        )
        answers = cursor.fetchall()
    return [
        (f"{host}:{port}", shards, result if success else None, "" if success else result)
        for (host, port, shards), (success, result) in zip(places, answers, strict=True)
    ]


def _one_connection_per_node(editor: BaseDatabaseSchemaEditor) -> None:
    """For the rest of the transaction: DDL on many shards at once cannot follow other DDL on what they hang on."""
    editor.execute("SET LOCAL citus.multi_shard_modify_mode TO 'sequential'", params=None)
