"""A part of the rows, and what makes it equal on both sides.

All rows of a table with one value of its key are compared by their number and the sum of their hashes, which depends on
no order and which a cluster adds up where the rows are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connections, transaction

from apps.access.cutoff import CutOff, within

from . import SOURCE, TARGET
from .errors import Differs
from .tables import Table

AT_ONCE = 50  # keys

Digests = dict[Any, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows by their key: of a list, or from `low` to before `high`, None for no bound."""

    keys: tuple[Any, ...] | None = None
    low: Any = None
    high: Any = None

    def where(self, table: Table) -> tuple[str, list[Any]]:
        if self.keys is not None:
            return f'"{table.key}" = ANY(%s::{table.key_type}[])', [list(self.keys)]
        bounds = [(sign, value) for sign, value in ((">=", self.low), ("<", self.high)) if value is not None]
        conditions = [f"{table.ordered_key} {sign} %s::{table.key_type}" for sign, _ in bounds]
        return " AND ".join(conditions) or "true", [value for _, value in bounds]


@dataclass
class Tally:
    """What was done: keys compared, rows and bytes copied, rows deleted; {table: keys that differed}."""

    rows: int = 0
    bytes: int = 0
    deleted: int = 0
    compared: dict[str, int] = field(default_factory=dict)
    differing: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.rows += other.rows
        self.bytes += other.bytes
        self.deleted += other.deleted
        for name, count in other.compared.items():
            self.compared[name] = self.compared.get(name, 0) + count
        for name, keys in other.differing.items():
            self.differing.setdefault(name, []).extend(keys)


def ask(alias: str, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def do(alias: str, statement: str, parameters: Sequence[Any] = ()) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.rowcount


@contextmanager
def until(end: float | None) -> Iterator[None]:
    """At this time (time.monotonic), if any, this thread's sessions of both databases are cut off. Raises CutOff."""
    if end is None:
        yield
        return
    if end <= time.monotonic():
        raise CutOff("the time is over")
    with ExitStack() as limits:
        for alias in (SOURCE, TARGET):
            connections[alias].ensure_connection()
            limits.enter_context(within(connections[alias].connection, end - time.monotonic()))
        yield


@contextmanager
def snapshot() -> Iterator[None]:
    """All that is read of the source in the block is of one moment."""
    with transaction.atomic(using=SOURCE):
        do(SOURCE, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def digests(alias: str, table: Table, part: Part) -> Digests:
    where, values = part.where(table)
    found = ask(
        alias,
        f'SELECT "{table.key}", count(*), sum({table.hashed}) FROM "{table.name}" WHERE {where} GROUP BY 1',  # noqa: S608
        values,
    )
    return {key: (count, int(total)) for key, count, total in found}


@dataclass
class Difference:
    """Of a table, what is not the same. wanted: how the keys are at the source; unwanted: those to be deleted here;
    parts: what to copy after that, as it is when nothing of it is here."""

    wanted: Digests = field(default_factory=dict)
    unwanted: list[Any] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)


def difference(table: Table, parts: Iterable[Part], tally: Tally) -> Difference:
    found = Difference()
    for part in parts:
        there, here = digests(SOURCE, table, part), digests(TARGET, table, part)
        tally.compared[table.name] = tally.compared.get(table.name, 0) + sum(count for count, _ in there.values())
        differing = [key for key in there.keys() | here.keys() if there.get(key) != here.get(key)]
        if differing:
            tally.differing.setdefault(table.name, []).extend(differing)
        wanted = {key: there[key] for key in differing if key in there}
        found.parts += [part] if wanted and not here else grouped(wanted)
        found.wanted |= wanted
        found.unwanted += [key for key in differing if key in here]
    return found


def settle(
    tables: Sequence[Table], parts_of: Callable[[], dict[str, list[Part]]], *, only_compare: bool = False
) -> Tally:
    """Make parts of each table the same here as at the source: one snapshot there, in which `parts_of` is asked which,
    and one transaction here, which is committed when what was copied has the source's checksums. No two parts of a
    table have a row in common. Raises Differs."""
    tally = Tally()
    with snapshot(), transaction.atomic(using=TARGET):
        parts = parts_of()
        found = {table: difference(table, parts.get(table.name, []), tally) for table in tables}
        if only_compare:
            return tally
        # What has to go goes first: a name that another row has now is unique.
        for table, differs in reversed(found.items()):
            for part in grouped(differs.unwanted):
                where, values = part.where(table)
                tally.deleted += do(TARGET, f'DELETE FROM "{table.name}" WHERE {where}', values)  # noqa: S608
        for table, differs in found.items():
            for part in differs.parts:
                _copy(table, part, tally)
                for key, digest in digests(TARGET, table, part).items():
                    if differs.wanted.pop(key, None) != digest:
                        raise Differs(f"{table.name}: {key} is not what was read; its part was not kept")
            if differs.wanted:
                raise Differs(f"{table.name}: {next(iter(differs.wanted))} did not arrive; its part was not kept")
    return tally


def _copy(table: Table, part: Part, tally: Tally) -> None:
    """Bytes as one server sends them and the other takes them."""
    where, values = part.where(table)
    rows = f'SELECT {table.listed} FROM "{table.name}" WHERE {where}'  # noqa: S608
    sent = connections[SOURCE].connection.cursor()
    taken = connections[TARGET].connection.cursor()
    with (
        sent.copy(f"COPY ({rows}) TO STDOUT (FORMAT binary)", values) as out,
        taken.copy(f'COPY "{table.name}" ({table.listed}) FROM STDIN (FORMAT binary)') as into,
    ):
        for data in out:
            into.write(data)
            tally.bytes += len(data)
    tally.rows += taken.rowcount


def boundaries(table: Table, every: int) -> list[Any]:
    """Each so manieth key of the source, in order."""
    return [
        key
        for (key,) in ask(
            SOURCE,
            f"SELECT key FROM (SELECT key, row_number() OVER (ORDER BY key) AS place"  # noqa: S608
            f' FROM (SELECT DISTINCT {table.ordered_key} AS key FROM "{table.name}") each) placed'
            " WHERE place %% %s = 0 ORDER BY key",
            [every],
        )
    ]


def windows(bounds: Sequence[Any]) -> list[Part]:
    """What lies between these bounds: together everything."""
    return [Part(low=low, high=high) for low, high in zip([None, *bounds], [*bounds, None], strict=True)]


def written(table: Table, bounds: Sequence[Any], since: int) -> tuple[dict[int, int], dict[int, set[Any]]]:
    """By the number of the window between these bounds: how many rows the source has, and the keys of those that were
    not there, or otherwise, when `since` was the oldest transaction under way.

    Every row names the transaction that wrote it (xmin; `age` compares 32 bits of it, in their circle). What was
    deleted leaves no row, but fewer of them. Neither asks for more of a row than its key.
    """
    rows = ask(
        SOURCE,
        f'SELECT {_window(table)}, count(*), array_agg("{table.key}")'  # noqa: S608
        f' FILTER (WHERE age(xmin) <= (SELECT age(%s::text::xid) OFFSET 0)) FROM "{table.name}" GROUP BY 1',
        [list(bounds), str(since % 2**32)],
    )
    return {at: count for at, count, _ in rows}, {at: set(keys) for at, _, keys in rows if keys}


def counts(table: Table, bounds: Sequence[Any]) -> dict[int, int]:
    """By the number of the window: how many rows are here."""
    return dict(ask(TARGET, f'SELECT {_window(table)}, count(*) FROM "{table.name}" GROUP BY 1', [list(bounds)]))  # noqa: S608


def _window(table: Table) -> str:
    return f"width_bucket({table.ordered_key}, %s::{table.key_type}[])"


def grouped(keys: Iterable[Any]) -> list[Part]:
    """Parts of a few keys each."""
    ordered = sorted(keys)
    return [Part(tuple(ordered[first : first + AT_ONCE])) for first in range(0, len(ordered), AT_ONCE)]


def unlike(one: dict[int, int], other: dict[int, int]) -> set[int]:
    """The windows that do not have as many rows in both."""
    return {at for at in one.keys() | other.keys() if one.get(at, 0) != other.get(at, 0)}
