"""Keeps documents of ragsite equal to the tables of a PostgreSQL publication, by logical replication without plug-ins.

    RAGSITE_API_KEY=... python follow_postgres.py --source-dsn postgresql://... --publication documents \
        --feed https://ragsite.example/api/v1/sources/ID/events --text 'public.products={name}\n\n{description}'

Needs PostgreSQL 15, Python 3.11, psycopg 3, httpx, and feed_events.py beside it. How-to: feed-from-postgres.md.

1. Without its slot it makes a temporary one and sends the tables as they were at that very point, then makes the slot
   of it. Killed before that, it begins anew.
2. Then it peeks at what was committed since, sends it, and only when all is safe with ragsite lets the slot advance.
   Killed in between, it sends again what ragsite knows already and refuses as stale.
3. The version of a row is the position in the log at which its transaction had committed. Positions of the changes
   would not do: a row's later change may have the lower one, when it waited for the transaction that came before it.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from string import Formatter
from typing import Any

import httpx
import psycopg
from feed_events import Event, Feed, delete, name_of, upsert
from psycopg import sql

UNCHANGED = object()  # a long value that an update left as it was: it is not in the log
Row = dict[str, Any]  # by column: text as PostgreSQL writes it, None, or UNCHANGED

TABLES = """
SELECT p.schemaname, p.tablename, p.attnames::text[], ARRAY(
    SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey)
    WHERE i.indrelid = c.oid AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
    ORDER BY array_position(i.indkey::int[], a.attnum::int)), p.rowfilter
FROM pg_publication_tables p JOIN pg_namespace n ON n.nspname = p.schemaname
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename WHERE p.pubname = %s
"""
PEEK = """
SELECT data FROM pg_logical_slot_peek_binary_changes(%s, %s, %s, 'proto_version', '1', 'publication_names', %s)
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the publication. condition: which of its rows are published."""

    schema: str
    table: str
    columns: list[str]
    key: list[str]
    condition: str | None

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"

    def uri(self, row: Row) -> str:
        return name_of(self.name, (row[column] for column in self.key))


class Message:
    """A message of pgoutput (postgresql.org/docs/current/protocol-logicalrep-message-formats.html), from its start."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, layout: str) -> Any:
        """A number of this layout of `struct`; a tuple of several."""
        found = struct.unpack_from(f">{layout}", self._data, self._at)
        self._at += struct.calcsize(f">{layout}")
        return found if len(found) > 1 else found[0]

    def mark(self) -> str:
        return chr(self.take("B"))

    def word(self) -> str:
        end = self._data.index(0, self._at)
        found, self._at = self._data[self._at : end].decode(), end + 1
        return found

    def row(self, columns: list[str]) -> Row:
        return dict(zip(columns, [self._value() for _ in range(self.take("H"))], strict=True))

    def _value(self) -> Any:
        kind = self.mark()
        if kind != "t":
            return None if kind == "n" else UNCHANGED
        end = self.take("I") + self._at
        found, self._at = self._data[self._at : end].decode(), end
        return found


class Follower:
    def __init__(self, options: argparse.Namespace, feed: Feed) -> None:
        self.options, self.feed = options, feed
        # Values in the log must be written as those in the tables are: one session, with its settings, reads both. The
        # log's are in its encoding, which is the database's unless it is named.
        self.source = psycopg.connect(options.source_dsn, autocommit=True, client_encoding="UTF8")
        self.relations: dict[int, tuple[str, list[str]]] = {}  # names and columns, as messages announce them
        self.xid = 0  # of the transaction that is being read

    def run(self) -> None:
        """For ever. Raises SystemExit, psycopg.Error and httpx.HTTPStatusError where that makes no sense."""
        self.tables()
        slot = self.source.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [self.options.slot])
        if slot.fetchone() is None:
            self.begin()
        while True:
            (now,) = self.source.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone() or ("",)
            try:
                peeked = self.peek(now)
                if peeked:
                    now = self.take(peeked)
                self.source.execute("SELECT pg_replication_slot_advance(%s, %s)", [self.options.slot, now])
            except psycopg.errors.ObjectInUse:  # PostgreSQL has not noticed yet that a follower was killed
                peeked = []
            if not peeked:
                time.sleep(self.options.poll)

    def begin(self) -> None:
        """Make the slot, and send what the tables held where it begins. What else the feed has of them is deleted."""
        with psycopg.connect(self.options.source_dsn, autocommit=True, replication="database") as maker:
            command = sql.SQL("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')")
            passing = sql.Identifier(f"{self.options.slot}_{maker.info.backend_pid}")
            made = maker.execute(command.format(passing)).fetchone()
            assert made is not None
            name, point, snapshot, _ = made
            high, low = (int(half, 16) for half in point.split("/"))
            with self.source.transaction():
                self.source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                self.source.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
                for table in self.tables().values():
                    gone = set(self.feed.names(f"{table.name}/"))
                    self.send(self.copied(table, gone, (high << 32) + low))
                    self.send(delete(uri, (high << 32) + low) for uri in sorted(gone))
            self.source.execute("SELECT pg_copy_logical_replication_slot(%s, %s, false)", [name, self.options.slot])

    def copied(self, table: Table, gone: set[str], version: int) -> Iterator[Event]:
        for row in self.rows(table):
            gone.discard(table.uri(row))
            yield self.event(table, row, version)

    def peek(self, until: str) -> list[Message]:
        """Whole transactions that had committed by then, in the order of their commits; up to some number of rows."""
        publication = '"' + self.options.publication.replace('"', '""') + '"'
        given = [self.options.slot, until, self.options.changes, publication]
        return [Message(data) for (data,) in self.source.execute(PEEK, given, binary=True)]

    def take(self, messages: Iterable[Message]) -> str:
        """Send what transactions changed, of a row only what each of them left of it; where the last of them ends."""
        tables = self.tables()
        ready: list[Event] = []
        changed: dict[str, Event] = {}  # by the transaction that is being read; its version is known at its end
        end = 0
        for message in messages:
            kind = message.mark()
            if kind == "B":
                _, _, self.xid = message.take("QqI")
            elif kind == "R":
                self.announced(message)
            elif kind in "IUD":
                name, columns = self.relations[message.take("I")]
                if name in tables:  # it may have left the publication since
                    self.change(kind, tables[name], message, columns, changed)
            elif kind == "T":
                self.send(ready)  # so that the feed names all that came before
                ready = []
                for _ in range(message.take("IB")[0]):
                    name, _ = self.relations[message.take("I")]
                    rows = [*self.feed.names(f"{name}/"), *(uri for uri in changed if uri.startswith(f"{name}/"))]
                    changed |= {uri: delete(uri, 0) for uri in rows}
            elif kind == "C":
                _, _, end, _ = message.take("BQQq")
                ready += [event | {"version": end} for event in changed.values()]
                changed = {}
        self.send(ready)
        return f"{end >> 32:X}/{end & 0xFFFFFFFF:X}"

    def announced(self, message: Message) -> None:
        oid, name = message.take("I"), f"{message.word()}.{message.word()}"
        columns = []
        for _ in range(message.take("BH")[1]):
            message.mark()
            columns.append(message.word())
            message.take("Ii")
        self.relations[oid] = (name, columns)

    def change(self, kind: str, table: Table, message: Message, columns: list[str], changed: dict[str, Event]) -> None:
        """Put into `changed` what became of a row: before its new values come, at times, its old key or old values."""
        old: Row = {}
        if message.mark() != "N":
            old = message.row(columns)
            changed[table.uri(old)] = delete(table.uri(old), 0)
            if kind == "D":
                return
            message.mark()
        row = message.row(columns)
        for column, value in row.items():
            if value is UNCHANGED and old.get(column) is not None:
                row[column] = old[column]
        uri = table.uri(row)
        changed.pop(uri, None)
        now: Row | None = row
        if UNCHANGED in row.values():
            now = self.now(table, row)
        if now is not None:  # else it is gone by now, as a later transaction will tell
            changed[uri] = self.event(table, now, 0)

    def now(self, table: Table, row: Row) -> Row | None:
        """The row as it is now, which is as it was left by this transaction or a later one, of which more will come.

        A transaction is in the log a moment before others see it.
        """
        running = "SELECT 1 FROM pg_locks WHERE locktype = 'transactionid' AND transactionid = %s::text::xid"
        while self.source.execute(running, [str(self.xid)]).fetchone():
            time.sleep(0.05)
        key = [sql.SQL("{} = {}").format(sql.Identifier(column), row[column]) for column in table.key]
        found = list(self.rows(table, *key))
        return found[0] if found else None

    def tables(self) -> dict[str, Table]:
        """By name. Raises SystemExit where rows cannot be told apart, or a template names what there is not."""
        found = [Table(*row) for row in self.source.execute(TABLES, [self.options.publication])]
        if not found:
            raise SystemExit(f"There is no publication {self.options.publication}, or it has no tables.")
        for table in found:
            templates = self.options.text.get(table.name, "") + self.options.title.get(table.name, "")
            fields = {field for _, field, _, _ in Formatter().parse(templates) if field}
            if missing := (fields | {*table.key}) - {*table.columns}:
                raise SystemExit(f"{table.name} publishes no column {', '.join(sorted(missing))}.")
            if not table.key:
                raise SystemExit(f"{table.name} has no primary key.")
        return {table.name: table for table in found}

    def rows(self, table: Table, *conditions: sql.Composable) -> Iterator[Row]:
        """As they are now, or in the snapshot of the transaction that is open."""
        published = sql.SQL(f"({table.condition or 'true'})")
        query = sql.SQL("COPY (SELECT {} FROM {} WHERE {}) TO STDOUT").format(
            sql.SQL(", ").join(map(sql.Identifier, table.columns)),
            sql.Identifier(table.schema, table.table),
            sql.SQL(" AND ").join([published, *conditions]),
        )
        with self.source.cursor() as cursor, cursor.copy(query) as copy:
            for values in copy.rows():
                yield dict(zip(table.columns, values, strict=True))

    def event(self, table: Table, row: Row, version: int) -> Event:
        """Its text by the template, else its columns, a line for each."""
        shown = defaultdict(str, {column: value for column, value in row.items() if value is not None})
        every = "\n".join(f"{column}: {value}" for column, value in shown.items())
        text, title = (given.get(table.name) for given in (self.options.text, self.options.title))
        made = every if text is None else text.format_map(shown)
        return upsert(table.uri(row), version, made, (title or "").format_map(shown))

    def send(self, events: Iterable[Event]) -> None:
        for event, problem in self.feed.send(events):
            print(json.dumps({"source_uri": event["source_uri"], "problem": problem}), file=sys.stderr)
            if not self.options.skip_refused:
                raise SystemExit("An event was refused: see above. Nothing has been taken from the slot.")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source-dsn", required=True, help="a role with REPLICATION that may read the tables")
    parser.add_argument("--publication", required=True)
    parser.add_argument("--feed", required=True, metavar="URL", help="https://.../api/v1/sources/ID/events")
    parser.add_argument("--slot", default="ragsite", help="one for each follower")
    for name in ("text", "title"):
        what = f"the {name} of a row, as in 'public.products={{name}}'; may be given for each table"
        parser.add_argument(f"--{name}", action="append", default=[], metavar="TABLE=TEMPLATE", help=what)
    parser.add_argument("--changes", type=int, default=5_000, help="rows after which a peek ends with its transaction")
    parser.add_argument("--poll", type=float, default=1.0, help="seconds to wait when there was nothing")
    parser.add_argument("--skip-refused", action="store_true", help="tell of events that are refused, and go on")
    options = parser.parse_args()
    key = os.environ.get("RAGSITE_API_KEY") or parser.error("RAGSITE_API_KEY is not set")
    for name in ("text", "title"):
        setattr(options, name, dict(each.replace("\\n", "\n").split("=", 1) for each in getattr(options, name)))
    try:
        Follower(options, Feed(options.feed, key)).run()
    except psycopg.Error as error:
        raise SystemExit(f"PostgreSQL: {error}")
    except httpx.HTTPStatusError as error:
        raise SystemExit(f"ragsite: {error.response.status_code} {error.response.text}")


if __name__ == "__main__":
    main()
