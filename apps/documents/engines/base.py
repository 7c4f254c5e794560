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


#: One JSON object for each table of {which}: see Part. (No percent sign: Citus formats it.)
PARTS = """
SELECT json_build_object(
    'name', t.relname, 'dead', pg_stat_get_dead_tuples(t.oid),
    'rows', coalesce(nullif(pg_stat_get_live_tuples(t.oid), 0), greatest(t.reltuples, 0)::bigint),
    'table_bytes', pg_table_size(t.oid), 'indexes_bytes', pg_indexes_size(t.oid),
    'index', v.name, 'method', v.method, 'index_bytes', v.bytes, 'valid', v.valid, 'mark', v.mark,
    'phase', b.phase, 'done', b.done
)
FROM pg_class t
LEFT JOIN LATERAL (
    SELECT i.relname AS name, a.amname AS method, pg_relation_size(i.oid) AS bytes, x.indisvalid AS valid,
           coalesce(obj_description(i.oid, 'pg_class'), '') AS mark
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam
    WHERE x.indrelid = t.oid AND a.amname IN ('hnsw', 'ivfflat') ORDER BY x.indisvalid DESC, i.oid LIMIT 1
) v ON true
LEFT JOIN LATERAL (
    SELECT p.phase, CASE WHEN p.blocks_total > 0 THEN 100.0 * p.blocks_done / p.blocks_total
                         WHEN p.tuples_total > 0 THEN 100.0 * p.tuples_done / p.tuples_total END AS done
    FROM pg_stat_progress_create_index p WHERE p.relid = t.oid AND p.datname = current_database() LIMIT 1
) b ON true
WHERE {which} ORDER BY t.oid
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A partition or a shard, by the statistics of PostgreSQL: rows and dead are about right.

    index: its vector index, None where there is none; mark: the comment on it. phase: of a build that runs on it, and
    done, how far that is, in percent, None where PostgreSQL does not tell. node: where it is, and problem: why nothing
    is known of it, on a cluster.
    """

    name: str
    rows: int = 0
    dead: int = 0
    table_bytes: int = 0
    indexes_bytes: int = 0
    index: str | None = None
    method: str | None = None
    index_bytes: int | None = None
    valid: bool | None = None
    mark: str | None = None
    phase: str | None = None
    done: float | None = None
    node: str = ""
    problem: str = ""


class Engine(Protocol):
    """How a table is made, spread and indexed. Statements go out one per execute."""

    name: str
    #: Documents that one transaction may lock and write.
    batch: int
    #: Does one snapshot show all that a transaction has changed, or nothing of it?
    whole_snapshots: bool
    #: Is the owner of a sharded table behind its tenant wall, as the application is?
    forced_walls: bool

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

    def parts(self, connection: BaseDatabaseWrapper, table: str) -> list[Part]:
        """What holds the rows of a table, as far as it can be seen."""
