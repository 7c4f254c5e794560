"""The seam between the schema and the two ways of spreading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


@dataclass(frozen=True, slots=True)
class GraphEntries:
    """An HNSW index and its table (names as SQL takes them), with about how many entries of it live and are dead."""

    table: str
    index: str
    entries: float
    dead: int
    days_since_vacuum: float


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
        parameters: str = "",
    ) -> None:
        """Run `create_sql` (a CREATE TABLE without partitioning) and spread the table by hash of `key`.

        before_spreading: statements about the table that its partitions or shards inherit. parameters: storage
        parameters of each of these.
        """

    def create_beside(self, editor: BaseDatabaseSchemaEditor, table: str) -> None:
        """Let a plain table, and those it refers to, be written in one atomic transaction with sharded ones."""

    def partitions(self, connection: BaseDatabaseWrapper, table: str) -> list[str]:
        """The tables that hold the rows and their indexes, where this engine names them; else the table itself."""

    def rows(self, connection: BaseDatabaseWrapper, table: str) -> int:
        """About how many rows the fullest of the table's partitions or shards has, by the planner's statistics."""

    def graphs(self, connection: BaseDatabaseWrapper) -> int:
        """How many indexes of a sharded table each search asks. Looked up once: it never changes."""

    def graph_entries(self, connection: BaseDatabaseWrapper, table: str) -> list[GraphEntries]:
        """The HNSW indexes of a table, where this engine can see into them."""
