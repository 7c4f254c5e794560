"""Running this app's named queries (sql/*.sql)."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import psycopg
from django.db import connection
from psycopg.adapt import Dumper
from psycopg.pq import Format

from apps.access.sql import database, execute, load, pipeline

from .engines import engine_for

#: {held} in a query: the versions that it is about, at most one of each document.
HELD = "unnest(%(documents)b::uuid[], %(versions)b::bigint[]) AS held (document_id, version)"
#: {tsv}: what a new chunk is found by its words with; `text` and `words` are columns of the rows it is made from. A
#: lexeme that comes more than once is there again for each time more, up to four (lexicon.py). OFFSET 0: made once.
TSV = """(
    SELECT t.tsv || array_to_tsvector(ARRAY(
        SELECT lexeme || chr(level) FROM unnest(t.tsv), generate_series(1, least(cardinality(positions) - 1, 3)) level
        WHERE cardinality(positions) > 1
    ))
    FROM (SELECT to_tsvector(%(language)s::regconfig, coalesce(words, text)) AS tsv OFFSET 0) t
)"""
_EACH = re.compile(r"\{each ([^}]*)\}")
_OF_DOCUMENTS = re.compile(r"unnest\(%\(documents\)b::uuid\[\], (.+?)\)\s+AS (\w+) \(document_id, ([^)]+)\)", re.DOTALL)
QUERIES = {
    name: text.replace("{held}", HELD).replace("{tsv}", TSV)
    for name, text in load(Path(__file__).parent / "sql").items()
}
#: The same for rows of one document on Citus: there a constant id leads to the one shard, and a change of rows on many
#: shards keeps out all others of its kind until it is committed. One Postgres has nothing from it but another plan.
_OF_ONE = {
    name: _OF_DOCUMENTS.sub(
        r"(SELECT %(document)s::uuid AS document_id, own.* FROM unnest(\1) AS own (\3)) AS \2", text
    )
    for name, text in QUERIES.items()
    if _OF_DOCUMENTS.search(text)
}


def rows(name: str, *, table: str = "", type: str = "", **parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a named query. `table` and `type` fill {table} and {type}: names made by spaces.py, never input."""
    return _execute(name, parameters, table=table, type=type).fetchall()


def rows_of_each(name: str, several: Sequence[dict[str, Any]]) -> list[list[tuple[Any, ...]]]:
    """Inside a scope: the rows of a named query for each of several sets of parameters, by a statement each, which
    touches one shard where one for all would be sent to all of them; in one round trip."""
    if not several:
        return []
    with database().wrap_database_errors, pipeline(database().connection):
        asked = [_execute(name, parameters) for parameters in several]
        return [each.fetchall() for each in asked]


def rows_of(name: str, **columns: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The rows of a named INSERT that writes what {each name type, ...} in it lists: for each name a parameter, a list
    of the rows' values.

    One row is written as VALUES, which Citus can send to its shard as it is; a list of them would grow the statement.
    """
    declared = _EACH.search(QUERIES[name])
    assert declared is not None
    pairs = [pair.split() for pair in declared[1].split(",")]
    if len(columns[pairs[0][0]]) == 1:
        source = "VALUES (" + ", ".join(f"%({column})s::{type}" for column, type in pairs) + ")"
        parameters: dict[str, Any] = {column: values[0] for column, values in columns.items()}
    else:
        arrays = ", ".join(f"%({column})b::{type}[]" for column, type in pairs)
        source = f"SELECT * FROM unnest({arrays})"  # noqa: S608
        parameters = dict(columns)
    return execute(_EACH.sub(lambda _: source, QUERIES[name]), parameters).fetchall()


def run(name: str, *, table: str = "", type: str = "", into: str = "", staged: str = "", **parameters: Any) -> int:
    """Run a named statement; how many rows it touched."""
    return _execute(name, parameters, table=table, type=type, into=into, staged=staged).rowcount


def _execute(name: str, parameters: dict[str, Any], **names: str) -> psycopg.Cursor:
    statement = QUERIES[name]
    documents = parameters.get("documents", ())
    if name in _OF_ONE and engine_for(connection).batch == 1 and len(set(documents)) == 1:
        statement, parameters = _OF_ONE[name], parameters | {"document": documents[0]}
    for placeholder, written in names.items():
        statement = statement.replace("{" + placeholder + "}", written)
    return execute(statement, parameters)


def clock() -> datetime:
    """The time by the database's clock, which is one for all hosts: what is stamped with it and asked for by it is in
    one order, where the rows in question are locked."""
    return rows("clock")[0][0]


def vector_text(values: npt.ArrayLike) -> str:
    """pgvector's text form of a vector."""
    return orjson.dumps(np.asarray(values, np.float32), option=orjson.OPT_SERIALIZE_NUMPY).decode()


def vector_from(sent: bytes) -> npt.NDArray[np.float32]:
    """What vector_send() gave."""
    return np.frombuffer(sent, ">f4", offset=4).astype(np.float32)


def vector_bytes(vectors: Sequence[npt.NDArray[np.float32]], storage: str) -> list[bytes]:
    """pgvector's binary form of each vector, for COPY."""
    return [item.tobytes()[4:] for item in _packed(vectors, storage)] if vectors else []


def _packed(vectors: Sequence[npt.NDArray[np.float32]], storage: str) -> npt.NDArray[Any]:
    """Each vector as an element of an array: its size in bytes, then what halfvec_recv or vector_recv reads."""
    number = ">f2" if storage == "halfvec" else ">f4"
    shape = [("bytes", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("values", number, len(vectors[0]))]
    items = np.zeros(len(vectors), np.dtype(shape))
    items["bytes"], items["dimensions"], items["values"] = items.itemsize - 4, len(vectors[0]), vectors
    return items


@dataclass(frozen=True, slots=True)
class VectorArray:
    """A parameter of the type halfvec[] or vector[], in pgvector's binary form: writing and reading text takes longer
    than all else that is done with a vector but indexing it."""

    vectors: Sequence[npt.NDArray[np.float32]]
    storage: str = "vector"


class _VectorArrayDumper(Dumper):
    format = Format.BINARY
    oid = 0  # the statement's cast tells

    def dump(self, obj: VectorArray) -> bytes:
        if not obj.vectors:
            return struct.pack(">iiI", 0, 0, 0)
        items = _packed(obj.vectors, obj.storage)
        return struct.pack(">iiIii", 1, 0, 0, len(items), 1) + items.tobytes()


psycopg.adapters.register_dumper(VectorArray, _VectorArrayDumper)
