"""One Postgres: hash partitions on the document."""

from __future__ import annotations

import json
from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from .base import PARTS, GraphEntries, Part

GRAPHS = """
SELECT format('%%I', t.relname), format('%%I', i.relname), greatest(i.reltuples, 0), pg_stat_get_dead_tuples(t.oid),
       extract(epoch FROM now() - coalesce(
           greatest(pg_stat_get_last_vacuum_time(t.oid), pg_stat_get_last_autovacuum_time(t.oid)),
           pg_postmaster_start_time())) / 86400
FROM pg_inherits h JOIN pg_class t ON t.oid = h.inhrelid
JOIN pg_index x ON x.indrelid = t.oid AND x.indisvalid
JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam AND a.amname = 'hnsw'
WHERE h.inhparent = to_regclass(%s) ORDER BY t.oid
"""


class PostgresEngine:
    """`PARTITION BY HASH`; the number is fixed by the first migration, later tables take it from the first one."""

    name = "postgres"
    batch = 200
    whole_snapshots = True
    forced_walls = True

    def __init__(self, partitions: int) -> None:
        self.count = partitions
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
        count = len(self.partitions(editor.connection, "documents_document")) or self.count
        editor.execute(f'{create_sql.rstrip().rstrip(";")} PARTITION BY HASH ("{key}")', params=None)
        for statement in before_spreading:
            editor.execute(statement, params=None)
        options = f" WITH ({parameters})" if parameters else ""
        for number in range(count):
            editor.execute(
                f'CREATE TABLE "{table}_p{number}" PARTITION OF "{table}"'
                f" FOR VALUES WITH (MODULUS {count}, REMAINDER {number}){options}",
                params=None,
            )

    def create_beside(self, editor: BaseDatabaseSchemaEditor, table: str) -> None:
        """Nothing to do: there is one place."""

    def partitions(self, connection: BaseDatabaseWrapper, table: str) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(%s) ORDER BY inhrelid",
                [table],
            )
            return [row[0] for row in cursor.fetchall()]

    def graphs(self, connection: BaseDatabaseWrapper) -> int:
        if self.found is None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass('documents_document')")
                self.found = max(1, cursor.fetchone()[0])
        return self.found

    def graph_entries(self, connection: BaseDatabaseWrapper, table: str) -> list[GraphEntries]:
        with connection.cursor() as cursor:
            cursor.execute(GRAPHS, [table])
            found = cursor.fetchall()
        return [GraphEntries(name, index, entries, dead, float(days)) for name, index, entries, dead, days in found]

    def rows(self, connection: BaseDatabaseWrapper, table: str) -> int:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT coalesce(max(reltuples), 0) FROM pg_class WHERE oid = ANY(%s::regclass[])",
                [self.partitions(connection, table)],
            )
            return int(cursor.fetchone()[0])

    def parts(self, connection: BaseDatabaseWrapper, table: str) -> list[Part]:
        with connection.cursor() as cursor:
            cursor.execute(
                PARTS.format(which="t.oid = ANY(%s::regclass[])"),
                [self.partitions(connection, table) or [table]],
            )
            return [Part(**json.loads(row[0]) if isinstance(row[0], str) else row[0]) for row in cursor.fetchall()]
