"""Running this app's named queries (sql/*.sql)."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from apps.access.sql import execute, load

#: {held} in a query: the versions that it is about, at most one of each document.
HELD = "unnest(%(documents)b::uuid[], %(versions)b::bigint[]) AS held (document_id, version)"
_EACH = re.compile(r"\{each ([^}]*)\}")
QUERIES = {name: text.replace("{held}", HELD) for name, text in load(Path(__file__).parent / "sql").items()}


def rows(name: str, *, table: str = "", type: str = "", **parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a named query. `table` and `type` fill {table} and {type}: names made by spaces.py, never input."""
    return execute(_statement(name, table, type), parameters).fetchall()


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


def run(name: str, *, table: str = "", type: str = "", **parameters: Any) -> int:
    """Run a named statement; how many rows it touched."""
    return execute(_statement(name, table, type), parameters).rowcount


def _statement(name: str, table: str, type: str) -> str:
    return QUERIES[name].replace("{table}", table).replace("{type}", type)


def vector_text(values: Sequence[float]) -> str:
    """pgvector's text form of a vector."""
    return "[" + ",".join(map(repr, values)) + "]"


def vector_from(sent: bytes) -> npt.NDArray[np.float32]:
    """What vector_send() gave."""
    return np.frombuffer(sent, ">f4", offset=4).astype(np.float32)


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
        count, dimensions = len(obj.vectors), len(obj.vectors[0])
        number = ">f2" if obj.storage == "halfvec" else ">f4"
        item = np.dtype([("bytes", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("values", number, dimensions)])
        items = np.zeros(count, item)
        items["bytes"], items["dimensions"], items["values"] = item.itemsize - 4, dimensions, obj.vectors
        return struct.pack(">iiIii", 1, 0, 0, count, 1) + items.tobytes()


psycopg.adapters.register_dumper(VectorArray, _VectorArrayDumper)
