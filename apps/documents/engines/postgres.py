"""One Postgres: hash partitions on the document."""

from __future__ import annotations

import json
from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from .base import PARTS, Part


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

    def rows(self, connection: BaseDatabaseWrapper, table: str) -> int:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT coalesce(max(reltuples), 0) FROM pg_class WHERE oid = ANY(%s::regclass[])",
                [self.partitions(connection, table)],
            )
            return int(cursor.fetchone()[0])

    def parts(self, connection: BaseDatabaseWrapper, table: str) -> list[Part]:
        with connection.cursor() as cursor:
            cursor.execute(PARTS.format(names="%s"), [self.partitions(connection, table) or [table]])
            return [Part(**part) for part in json.loads(cursor.fetchone()[0])]

    def indexable(self, connection: BaseDatabaseWrapper, table: str) -> list[Part]:
        return self.parts(connection, table)

    def run(self, connection: BaseDatabaseWrapper, part: Part, statement: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    def defined(self, index: str, parts: Sequence[Part]) -> list[str]:
        return [part.index for part in parts if part.index]  # that over them all takes no options
