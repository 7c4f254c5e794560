"""What there is to copy: the tables of both databases, and how a row is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from django.db import connections

from ..partitions import TABLES as OF_DOCUMENTS
from . import SOURCE, TARGET
from .errors import CannotCopy

#: `migrate` has written these here, and they are compared by name.
NOT_COPIED = {"django_migrations"}
#: An IVFFlat index has as many lists as fit the partitions that it is over: those here are others.
COMPARED_AS = {("documents_embeddingspace", "index_parameters"): "index_parameters - 'lists'"}
#: name, key (the first column of the primary key), its type, columns, their types, and what sends a value of a type
#: that an extension brought: such a type has another number in each database, which is part of a row that is sent.
CATALOG = """
SELECT c.relname, max(a.attname) FILTER (WHERE a.attnum = p.indkey[0]),
       max(format_type(a.atttypid, NULL)) FILTER (WHERE a.attnum = p.indkey[0]),
       array_agg(a.attname::text ORDER BY a.attname),
       array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attname),
       array_agg(CASE WHEN t.oid < 10000 THEN '' ELSE t.typsend::text END ORDER BY a.attname)
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
GROUP BY c.relname ORDER BY c.relname
"""
#: Tables and columns that number their rows.
NUMBERED = """
SELECT c.relname, a.attname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attidentity <> ''
WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition ORDER BY 1
"""


@dataclass(frozen=True)
class Table:
    """key: the column whose values rows are compared and replaced by, all of one value together. hashed: the SQL of 64
    bits that stand for a row, the same on every server."""

    name: str
    key: str
    key_type: str
    columns: tuple[str, ...]
    types: tuple[str, ...] = field(compare=False)
    senders: tuple[str, ...] = field(compare=False)

    @property
    def of_documents(self) -> bool:
        return is_of_documents(self.name)

    @property
    def ordered_key(self) -> str:
        """Text is in one order on every server only by its bytes."""
        return f'"{self.key}" COLLATE "C"' if self.key_type.startswith(("character", "text")) else f'"{self.key}"'

    @property
    def listed(self) -> str:
        return ", ".join(f'"{column}"' for column in self.columns)

    @property
    def hashed(self) -> str:
        values = (
            COMPARED_AS.get((self.name, column)) or (f'{sender}("{column}")' if sender else f'"{column}"')
            for column, sender in zip(self.columns, self.senders, strict=True)
        )
        return f"('x' || left(md5(record_send(ROW({', '.join(values)}))), 16))::bit(64)::bigint"


def is_of_documents(name: str) -> bool:
    """Is it one of the sharded tables?"""
    return name in OF_DOCUMENTS or name.startswith("embedding_")


def read(alias: str) -> dict[str, Table]:
    with connections[alias].cursor() as cursor:
        cursor.execute(CATALOG)
        rows = cursor.fetchall()
    return {
        name: Table(name, key, kind, tuple(columns), tuple(types), tuple(senders))
        for name, key, kind, columns, types, senders in rows
        if name not in NOT_COPIED
    }


def both() -> tuple[list[Table], list[Table]]:
    """The tables of documents, documents first, and the others. Raises CannotCopy unless they are the same on both
    sides."""
    there, here = read(SOURCE), read(TARGET)
    if there.keys() != here.keys():
        raise CannotCopy(f"only one side has the tables {', '.join(sorted(there.keys() ^ here.keys()))}")
    for name, table in there.items():
        if (table, table.types) != (here[name], here[name].types):
            raise CannotCopy(f"the table {name} has not the same columns on both sides")
    found = sorted(here.values(), key=lambda table: (table.name != "documents_document", table.name))
    return [table for table in found if table.of_documents], [table for table in found if not table.of_documents]


def numbered(found: Sequence[Table]) -> list[tuple[str, str]]:
    """Tables among these, and their columns that number rows."""
    with connections[TARGET].cursor() as cursor:
        cursor.execute(NUMBERED)
        names = {table.name for table in found}
        return [(table, column) for table, column in cursor.fetchall() if table in names]
