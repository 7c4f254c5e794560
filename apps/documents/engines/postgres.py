"""One Postgres: hash partitions on the document."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


class PostgresEngine:
    """`PARTITION BY HASH`; the number is fixed by the first migration, later tables take it from the first one."""

    name = "postgres"
    batch = 200
    whole_snapshots = True

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
    ) -> None:
        count = len(self.partitions(editor, "documents_document")) or self.count
        editor.execute(f'{create_sql.rstrip().rstrip(";")} PARTITION BY HASH ("{key}")', params=None)
        for statement in before_spreading:
            editor.execute(statement, params=None)
        for number in range(count):
            editor.execute(
                f'CREATE TABLE "{table}_p{number}" PARTITION OF "{table}"'
                f" FOR VALUES WITH (MODULUS {count}, REMAINDER {number})",
                params=None,
            )

    def create_beside(self, editor: BaseDatabaseSchemaEditor, table: str) -> None:
        """Nothing to do: there is one place."""

    def partitions(self, editor: BaseDatabaseSchemaEditor, table: str) -> list[str]:
        with editor.connection.cursor() as cursor:
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
