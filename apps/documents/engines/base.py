"""The seam between the schema and the two ways of spreading it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


class Engine(Protocol):
    """How a table is made, spread and indexed. Statements go out one per execute."""

    name: str
    #: Documents that one transaction may lock and write.
    batch: int
    #: Does one snapshot show all that a transaction has changed, or nothing of it?
    whole_snapshots: bool

    def create_sharded(
        self,
        editor: BaseDatabaseSchemaEditor,
        create_sql: str,
        table: str,
        key: str,
        *,
        before_spreading: Sequence[str] = (),
    ) -> None:
        """Run `create_sql` (a CREATE TABLE without partitioning) and spread the table by hash of `key`.

        before_spreading: statements about the table that its partitions or shards inherit.
        """

    def create_beside(self, editor: BaseDatabaseSchemaEditor, table: str) -> None:
        """Let a plain table, and those it refers to, be written in one atomic transaction with sharded ones."""

    def partitions(self, editor: BaseDatabaseSchemaEditor, table: str) -> list[str]:
        """The tables that hold the rows and their indexes, where this engine names them; else the table itself."""

    def graphs(self, connection: BaseDatabaseWrapper) -> int:
        """How many indexes of a sharded table each search asks. Looked up once: it never changes."""
