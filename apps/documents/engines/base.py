"""The seam between the schema and the two ways of spreading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

#: A JSON array of what Part says about each of the tables {names}, an array, in its order; nulls of one not there.
PARTS = """
SELECT coalesce(json_agg(json_build_object(
    'name', t.relname, 'dead', pg_stat_get_dead_tuples(t.oid),
    'rows', coalesce(nullif(pg_stat_get_live_tuples(t.oid), 0), greatest(t.reltuples, 0)::bigint),
    'days_since_vacuum', extract(epoch FROM now() -
        greatest(pg_stat_get_last_vacuum_time(t.oid), pg_stat_get_last_autovacuum_time(t.oid))) / 86400,
    'forgotten', pg_relation_size(t.oid) > 0 AND 4 = num_nulls(
        pg_stat_get_last_vacuum_time(t.oid), pg_stat_get_last_autovacuum_time(t.oid),
        pg_stat_get_last_analyze_time(t.oid), pg_stat_get_last_autoanalyze_time(t.oid)),
    'table_bytes', CASE pg_relation_size(t.oid) WHEN 0 THEN 0 ELSE pg_table_size(t.oid) END,
    'indexes_bytes', pg_indexes_size(t.oid),
    'index', v.name, 'method', v.method, 'entries', v.entries, 'index_bytes', v.bytes, 'valid', v.valid,
    'mark', v.mark, 'phase', b.phase, 'done', b.done,
    'broken', ARRAY(
        SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
        WHERE x.indrelid = t.oid AND NOT x.indisvalid ORDER BY i.oid
    )
) ORDER BY asked.place), '[]')::text
FROM unnest({names}::text[]) WITH ORDINALITY AS asked (name, place)
LEFT JOIN pg_class t ON t.oid = to_regclass(asked.name)
LEFT JOIN LATERAL (
    SELECT i.relname AS name, a.amname AS method, greatest(i.reltuples, 0) AS entries, pg_relation_size(i.oid) AS bytes,
           x.indisvalid AS valid, coalesce(obj_description(i.oid, 'pg_class'), '') AS mark
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam
    WHERE x.indrelid = t.oid AND a.amname IN ('hnsw', 'ivfflat') ORDER BY x.indisvalid DESC, i.oid LIMIT 1
) v ON true
LEFT JOIN LATERAL (
    SELECT p.phase, CASE WHEN p.blocks_total > 0 THEN 100.0 * p.blocks_done / p.blocks_total
                         WHEN p.tuples_total > 0 THEN 100.0 * p.tuples_done / p.tuples_total END AS done
    FROM pg_stat_progress_create_index p WHERE p.relid = t.oid AND p.datname = current_database() LIMIT 1
) b ON true
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A partition or a shard, by the statistics of PostgreSQL: rows and dead are about right.

    days_since_vacuum: None where it never was, as far as is known. forgotten: there are rows, and nothing has looked at
    them since the statistics began, which they do anew after a crash: dead counts only what came since.
    table_bytes: 0 of an empty table, which may have a page for values that are stored out of line.
    index: its vector index, None where there is none; entries: live ones in it; mark: the comment on it. phase: of a
    build that runs on it, and done, how far that is, in percent, None where PostgreSQL does not tell. broken: indexes
    that are not valid. node: where it is, and problem: why nothing is known of it, on a cluster.
    """

    name: str
    rows: int = 0
    dead: int = 0
    days_since_vacuum: float | None = None
    forgotten: bool = False
    table_bytes: int = 0
    indexes_bytes: int = 0
    index: str | None = None
    method: str | None = None
    entries: float | None = None
    index_bytes: int | None = None
    valid: bool | None = None
    mark: str | None = None
    phase: str | None = None
    done: float | None = None
    broken: Sequence[str] = ()
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

    def parts(self, connection: BaseDatabaseWrapper, table: str) -> list[Part]:
        """What holds the rows of a table, as far as it can be seen. (On a cluster all nodes are asked: it takes some
        twenty milliseconds, or as long as a node does not answer.)"""

    def indexable(self, connection: BaseDatabaseWrapper, table: str) -> list[Part]:
        """What a first index is built on, one after the other: the partitions; on a cluster the table as a whole."""

    def run(self, connection: BaseDatabaseWrapper, part: Part, statement: str) -> None:
        """Outside of a transaction: run a statement about one part, or its index, where it is."""

    def defined(self, index: str, parts: Sequence[Part]) -> list[str]:
        """The names by which the options of a table's vector index, which these parts have, are changed."""
