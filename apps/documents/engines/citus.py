"""A Citus cluster: tables distributed by the document, co-located, so that one document lives on one node."""

from __future__ import annotations

import json
from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from .base import PARTS, GraphEntries, Part

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
        with connection.cursor() as cursor:
            of_shard = "SELECT reltuples::bigint FROM pg_class WHERE oid = '%s'::regclass"
            cursor.execute(
                "SELECT coalesce(max(result::bigint), 0) FROM run_command_on_shards(%s::regclass, %s)",
                [table, of_shard],
            )
            return int(cursor.fetchone()[0])

    def graphs(self, connection: BaseDatabaseWrapper) -> int:
        if self.found is None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = to_regclass(%s)", [ANCHOR])
                self.found = max(1, cursor.fetchone()[0])
        return self.found

    def graph_entries(self, connection: BaseDatabaseWrapper, table: str) -> list[GraphEntries]:
        return []  # the nodes know

    def parts(self, connection: BaseDatabaseWrapper, table: str) -> list[Part]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT r.shardid, r.success, r.result, p.nodename || ':' || p.nodeport"
                " FROM run_command_on_shards(%s::regclass, %s) r JOIN pg_dist_shard_placement p USING (shardid)"
                " ORDER BY r.shardid",
                [table, PARTS.format(which="t.oid = '%s'::regclass")],
            )
            return [
                Part(**json.loads(result), node=node)
                if success
                else Part(f"{table}_{shard}", node=node, problem=str(result))
                for shard, success, result, node in cursor.fetchall()
            ]


def _one_connection_per_node(editor: BaseDatabaseSchemaEditor) -> None:
    """For the rest of the transaction: DDL on many shards at once cannot follow other DDL on what they hang on."""
    editor.execute("SET LOCAL citus.multi_shard_modify_mode TO 'sequential'", params=None)
