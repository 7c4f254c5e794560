"""Rounds of copying, from the first to the last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from django.db import connections, transaction

from apps.access.cutoff import CutOff, cut_off

from .. import spaces
from ..models import EmbeddingSpace
from . import SOURCE, TARGET, indexes, standstill, tables
from .errors import CannotCopy, Unknown
from .parts import Part, Tally, ask, boundaries, counts, do, grouped, settle, unlike, until, windows, written
from .tables import Table
from .threshold import Mark, is_kept, lift_wall, opened, read_mark, refuse_writes, take_writes

FEWEST_KEYS, MOST_WINDOWS = 32, 4_096  # of a window, in which rows are counted
ROWS_AT_ONCE = 5_000  # of a table, about, in a transaction of the first round
SHORT_SECONDS = 5.0  # a round that took no longer leaves so little that the writers may be stopped for the next
MOST_ROUNDS = 5  # before the writers are stopped all the same
TOLD_SECONDS = 5.0

Told = Callable[[str], None]


def copy(*, streams: int, told: Told) -> Tally:
    """One round: what is here is as the source was when the round began, or newer. Raises CannotCopy."""
    with opened() as mark:
        return _round(mark, streams, told)


def hand_over(*, streams: int, told: Told, longest: float) -> float:
    """Stop the source's writers, as late as possible, and copy the rest, for `longest` seconds in all, whatever hangs.
    Returns for how many seconds nobody could write until both were the same; they stay stopped. Raises CannotCopy, and
    lets them write again then; but for Unknown."""
    with opened() as mark:
        for _ in range(MOST_ROUNDS):
            began = time.monotonic()
            _round(mark, streams, told)
            if time.monotonic() - began < SHORT_SECONDS:
                break
        began = time.monotonic()
        standstill.stop()
        end = began + longest
        try:
            told("the source takes no writes any more")
            with until(end):
                _round(mark, streams, told, end)
            _take_over(mark, end)
        except Unknown:
            raise
        except BaseException as error:
            standstill.reopen()
            told("the source takes writes again")
            if isinstance(error, CutOff):
                raise CannotCopy(
                    f"what was left was not copied within {longest:g} s (--max-stop-seconds): does a node hang, or"
                    " does a session hold a lock? Run --final again"
                ) from error
            raise
        return time.monotonic() - began


def _take_over(mark: Mark, end: float) -> None:
    """Keep that everything is here, and take writes. Raises Unknown where nobody can tell whether this was done."""
    mark.handed_over, asked = True, False
    try:
        with transaction.atomic(using=TARGET):
            with until(end):
                mark.keep()
                take_writes()
            asked = True  # from here on nothing is cut off: it would be left to chance who takes writes
    except BaseException:
        if not asked or not is_kept(mark):
            raise


def verify(*, streams: int, told: Told) -> Tally:
    """Compare all rows of both; the Tally tells what differs. Where anything does, the next round trusts nothing."""
    with opened(again=True) as mark:
        tally = _compare(streams, told)
        if tally.differing and mark.compared is not None:
            mark.compared = None
            mark.keep()
        return tally


def _compare(streams: int, told: Told) -> Tally:
    of_documents, others = tables.both()
    tally = settle(others, lambda: {each.name: windows(_bounds(each)) for each in others}, only_compare=True)
    tally.add(_each(of_documents, _all_parts(of_documents), streams, told, only_compare=True))
    return tally


def reopen(*, streams: int, told: Told, discard: bool = False) -> None:
    """Let the source take writes again, and this database be copied to again, never both at once.

    Once everything was handed over, this database may have taken writes, which the next round would undo: then all rows
    are compared first, unless `discard` gives them up. Raises CannotCopy, with the source as it was, where the
    application is connected here or anything differs.
    """
    if read_mark() is None:
        raise CannotCopy("this database is no copy of the source")
    with opened(again=True) as mark:
        if mark.handed_over:
            try:
                refuse_writes()
                if not discard and (differing := sorted(_compare(streams, told).differing)):
                    raise CannotCopy(
                        f"this database was written to since everything was handed over: {', '.join(differing)}"
                        " (--verify tells more). Go on with it, or give that up: --reopen --discard-target"
                    )
                # Before the source takes writes, so that a killed process leaves at most neither doing so.
                mark.handed_over, mark.compared = False, None if discard else mark.compared
                mark.keep()
            except BaseException:
                take_writes()
                raise
        standstill.reopen()


# --- one round ---------------------------------------------------------------------------------------------------


def _round(mark: Mark, streams: int, told: Told, end: float | None = None) -> Tally:
    """end: as for `until`, of its threads."""
    began = time.monotonic()
    [(horizon, started)] = ask(
        SOURCE,
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint,"
        " extract(epoch FROM pg_postmaster_start_time())::text",
    )
    # Restored or failed over, the source may have lost what was copied, and number other transactions the same.
    known = mark.compared is not None and mark.started == started and 0 <= horizon - mark.compared < 2**31
    since = mark.compared if known else None
    _make_spaces()
    lift_wall()
    if since is None:
        indexes.take_away()
    of_documents, others = tables.both()
    tally = settle(others, lambda: _parts_of_others(others, since))
    indexes.keep_lists()
    _keep_counting(others)
    if since is None:
        tally.add(_each(of_documents, _all_parts(of_documents), streams, told, end))
        for table in [*of_documents, *others]:
            do(TARGET, f'VACUUM (ANALYZE) "{table.name}"')
    else:
        tally.add(_since(of_documents, since, streams, told, end))
    indexes.bring_back(told)
    mark.compared, mark.started = horizon, started
    mark.keep()
    told(
        f"{tally.rows} rows copied, {tally.deleted} deleted, {tally.bytes / 2**20:.1f} MB"
        f" in {time.monotonic() - began:.1f} s"
    )
    return tally


def _since(of_documents: Sequence[Table], since: int, streams: int, told: Told, end: float | None) -> Tally:
    """What was written, document by document; then, window by window, of which there are not as many rows still."""
    bounds = _bounds(of_documents[0])
    seen = {table: written(table, bounds, since) for table in of_documents}
    keys = {key for _, by_window in seen.values() for found in by_window.values() for key in found}
    tally = _each(of_documents, grouped(keys), streams, told, end)
    gone = set().union(*(unlike(there, counts(table, bounds)) for table, (there, _) in seen.items()))
    every = windows(bounds)
    tally.add(_each(of_documents, [every[at] for at in sorted(gone)], streams, told, end))
    return tally


def _parts_of_others(others: Sequence[Table], since: int | None) -> dict[str, list[Part]]:
    """All or some windows of each table."""
    known = {space.table for space in EmbeddingSpace.objects.using(SOURCE).all()}
    if not known <= tables.read(TARGET).keys():
        raise CannotCopy("an embedding space was made at this moment: run it again")
    found = {}
    for table in others:
        bounds = _bounds(table)
        found[table.name] = every = windows(bounds)
        if since is not None:
            there, keys = written(table, bounds, since)
            found[table.name] = [every[at] for at in sorted(keys.keys() | unlike(there, counts(table, bounds)))]
    return found


def _bounds(table: Table) -> list[Any]:
    """Of the table's windows."""
    [(keys,)] = ask(SOURCE, f'SELECT count(DISTINCT "{table.key}") FROM "{table.name}"')  # noqa: S608
    return boundaries(table, max(FEWEST_KEYS, keys // MOST_WINDOWS))


def _all_parts(of_documents: Sequence[Table]) -> list[Part]:
    """For as many documents each as have ROWS_AT_ONCE rows in the table that has most."""
    counts = [ask(SOURCE, f'SELECT count(*) FROM "{table.name}"')[0][0] for table in of_documents]  # noqa: S608
    rows_of_one = max(1, max(counts) / max(1, counts[0]))
    return windows(boundaries(of_documents[0], max(1, int(ROWS_AT_ONCE / rows_of_one))))


def _each(
    of_documents: Sequence[Table],
    parts: Sequence[Part],
    streams: int,
    told: Told,
    end: float | None = None,
    *,
    only_compare: bool = False,
) -> Tally:
    """Settle the parts, each for all tables of documents, by several threads with sessions of their own. end: as
    for `until`."""
    total, done, began, told_at = Tally(), 0, time.monotonic(), time.monotonic()
    left, lock = iter(parts), threading.Lock()
    sessions: list[psycopg.Connection] = []

    def settled(part: Part) -> Tally:
        with until(end):
            return settle(of_documents, lambda: {each.name: [part] for each in of_documents}, only_compare=only_compare)

    def work() -> None:
        nonlocal done, told_at
        try:
            for alias in (SOURCE, TARGET):
                connections[alias].ensure_connection()
                sessions.append(connections[alias].connection)
            while True:
                with lock:
                    part = next(left, None)
                if part is None:
                    return
                each = settled(part)
                with lock:
                    total.add(each)
                    done += 1
                    if time.monotonic() > told_at + TOLD_SECONDS:
                        told_at = time.monotonic()
                        rate = total.bytes / 2**20 / (told_at - began)
                        told(f"{done} of {len(parts)} parts, {total.rows} rows, {rate:.1f} MB/s")
        finally:
            for alias in (SOURCE, TARGET):
                connections[alias].close()

    with ThreadPoolExecutor(streams) as pool:
        running = [pool.submit(work) for _ in range(min(streams, len(parts)))]
        try:
            for each in running:
                each.result()
        except BaseException:
            with lock:
                left = iter(())
            for session in sessions:
                cut_off(session)  # nothing of its part will be kept, and it may wait for a node that hangs
            raise
    return total


# --- what belongs to the tables ----------------------------------------------------------------------------------


def _make_spaces() -> None:
    """The tables of the source's spaces; those that `migrate` made here by other settings go."""
    wanted = {space.table: space for space in EmbeddingSpace.objects.using(SOURCE).order_by("created_at")}
    for own in EmbeddingSpace.objects.using(TARGET).all():
        like = wanted.get(own.table)
        shape = ("dimensions", "storage", "index_method")
        if like and all(getattr(own, name) == getattr(like, name) for name in shape):
            del wanted[own.table]
        elif indexes.is_empty(own.table):
            do(TARGET, f'DROP TABLE "{own.table}"')
            own.delete(using=TARGET)
        else:
            raise CannotCopy(f"the space {own} has become another at the source: begin with an empty database")
    for space in wanted.values():
        named = ("slug", "backend", "model", "dimensions", "index_method", "storage", "metric", "index_parameters")
        spaces.create(using=TARGET, **{name: getattr(space, name) for name in named})


def _keep_counting(others: Sequence[Table]) -> None:
    """Columns that number rows go on where the source's are."""
    for table, column in tables.numbered(others):
        [(sequence,)] = ask(SOURCE, "SELECT pg_get_serial_sequence(%s, %s)", [table, column])
        [(last, called)] = ask(SOURCE, f"SELECT last_value, is_called FROM {sequence}")  # noqa: S608
        ask(TARGET, "SELECT setval(pg_get_serial_sequence(%s, %s), %s, %s)", [table, column, last, called])
