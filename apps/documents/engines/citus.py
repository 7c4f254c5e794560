"""A Citus cluster: tables distributed by the document, co-located, so that one document lives on one node."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.backends.base.schema import BaseDatabaseSchemaEditor

ANCHOR = "documents_document"


class CitusEngine:
    """Distributed tables; the shards are the partitions (one level only).

    Order matters: reference tables first, then documents, then each table that hangs on it, co-located. Foreign keys
    are added after that, which Django's deferred SQL does by itself.
    """

    name = "citus"

    def create_sharded(
        self,
        editor: BaseDatabaseSchemaEditor,
        create_sql: str,
        table: str,
        key: str,
        *,
        before_spreading: Sequence[str] = (),
    ) -> None:
        # Parallel DDL on several shards cannot follow writes to reference tables in one transaction.
        editor.execute("SET LOCAL citus.multi_shard_modify_mode TO 'sequential'", params=None)
        editor.execute(create_sql, params=None)
        for statement in before_spreading:
            editor.execute(statement, params=None)
        beside = "" if table == ANCHOR else f", colocate_with => '{ANCHOR}'"
        editor.execute(f"SELECT create_distributed_table('{table}', '{key}'{beside})", params=None)

    def create_everywhere(self, editor: BaseDatabaseSchemaEditor, table: str) -> None:
        editor.execute("SET LOCAL citus.multi_shard_modify_mode TO 'sequential'", params=None)
        editor.execute(f"SELECT create_reference_table('{table}')", params=None)

    def create_beside(self, editor: BaseDatabaseSchemaEditor, table: str) -> None:
        # A table that Citus does not know would be committed after the one worker written to, not with it: a crash in
        # between would keep a document and lose its job. A write to a table that it manages makes it prepare first.
        editor.execute("SET LOCAL citus.multi_shard_modify_mode TO 'sequential'", params=None)
        editor.execute(f"SELECT citus_add_local_table_to_metadata('{table}')", params=None)

    def partitions(self, editor: BaseDatabaseSchemaEditor, table: str) -> list[str]:
        return [table]
