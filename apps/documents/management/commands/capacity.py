"""`manage.py capacity`: the memory, disk, time and machines that so many documents and searches take."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.documents.capacity import BadWish, Constants, Needs, Wishes, needs
from apps.documents.capacity.installed import installed

FACTORS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}
SIZES = {"": 1.0, "k": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}


def count(text: str) -> float:
    return _number(text, FACTORS, "")


def size(text: str) -> float:
    return _number(text, SIZES, "i?B?")


def _number(text: str, factors: dict[str, float], tail: str) -> float:
    """Raises ArgumentTypeError. No commas: 1,500 is not the same everywhere."""
    found = re.fullmatch(rf"([\d_.]+(?:e\d+)?)\s*([{''.join(factors)}]?){tail}", text.strip())
    try:
        assert found is not None
        return float(found[1].replace("_", "")) * factors[found[2]]
    except (AssertionError, ValueError):
        known = ", ".join(name for name in factors if name)
        raise argparse.ArgumentTypeError(f"{text!r} is no number such as 250000 or 1.5M ({known})")


class Command(BaseCommand):
    help = "Tell what so many documents and searches take, from what was measured."

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_argument_group("what there shall be")
        what.add_argument("--documents", type=count, metavar="N", help="such as 200k or 1.5M")
        what.add_argument("--chunks", type=count, metavar="N", help="live ones, in place of --documents")
        what.add_argument("--chunks-per-document", type=count, metavar="N", help="10")
        what.add_argument("--chunk-tokens", type=count, metavar="N", help="of a chunk, on average: 150")
        what.add_argument("--original-bytes", type=size, metavar="SIZE", help="of a file: as long as its text")
        what.add_argument("--versions", type=count, metavar="N", help="kept of a document, on average: 1.5")
        what.add_argument("--dimensions", type=int, metavar="N", help="384")
        what.add_argument("--storage", help="halfvec (the default) or vector")
        what.add_argument("--index", help="hnsw (the default), bits (manage.py space create --binary) or ivfflat")
        what.add_argument("--m", type=int, help="of HNSW: 16")
        work = parser.add_argument_group("what shall be done with it")
        work.add_argument("--searches-per-second", type=count, metavar="N", help="at the peak, not kept: 10")
        work.add_argument("--hybrid", type=float, metavar="SHARE", help="of the searches, others are dense: 1")
        work.add_argument("--new-queries", type=float, metavar="SHARE", help="whose vector is not kept: 1")
        work.add_argument("--changed-per-day", type=float, metavar="SHARE", help="of the documents: 0.01")
        work.add_argument("--replaced", type=float, metavar="SHARE", help="of a changed document's chunks: 0.2")
        work.add_argument("--added-per-hour", type=count, metavar="N", help="documents: 0")
        work.add_argument("--load-hours", type=count, metavar="H", help="to embed everything for the first time: 24")
        where = parser.add_argument_group("on what")
        where.add_argument("--engine", help="auto (the default), postgres or citus")
        where.add_argument("--graphs", type=int, metavar="N", help="partitions or shards: as few as there may be")
        where.add_argument("--node-memory", type=size, metavar="SIZE", help="of a machine for the database: 64G")
        where.add_argument("--node-cores", type=int, metavar="N", help="its processors (hyper-threads): 16")
        where.add_argument("--cached", help="all that searches read (the default), or indexes: then they read the disk")
        where.add_argument("--busy", type=float, metavar="SHARE", help="of the processors, at the peak: 0.5")
        parser.add_argument(
            "--from-database",
            action="store_true",
            help="begin with this installation: its mean sizes, and what they take here; --documents or --chunks tells"
            " how far it grows",
        )
        parser.add_argument(
            "--constants", type=Path, metavar="FILE", help="your own, by `python -m benchmarks capacity`"
        )
        parser.add_argument("--json", action="store_true", help="bytes, seconds and all that went in")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            constants = Constants.load(options["constants"])
            here = installed(constants) if options["from_database"] else None
            wishes = _wishes(options, here.wishes if here else {})
            scale = here.scale(constants) if here else {}
            told = needs(wishes, constants, scale=scale)
        except BadWish as error:
            raise CommandError(str(error))
        if options["json"]:
            read = {name: {"value": float(each), "unit": each.unit, "source": each.source} for name, each in constants}
            found = {"wishes": asdict(wishes), "needs": asdict(told), "scale": scale, "constants": read}
            self.stdout.write(json.dumps(found, indent=2))
            return
        for line in [*_lines(wishes, told, scale), "", *_assumed(wishes, scale, constants)]:
            self.stdout.write(line)


def _wishes(options: dict[str, Any], here: dict[str, Any]) -> Wishes:
    """What is named goes before what is here, and that before the defaults."""
    named = {each.name: options[each.name] for each in fields(Wishes) if options.get(each.name) is not None}
    given = here | named
    if options["chunks"] is not None:
        if options["documents"] is not None:
            raise BadWish("--documents or --chunks, not both: one follows from the other and --chunks-per-document")
        given["documents"] = options["chunks"] / given.get("chunks_per_document", Wishes.chunks_per_document)
    if "documents" not in given:
        raise BadWish("how many? --documents, --chunks, or --from-database for what is here")
    return Wishes(**given)


def _lines(wishes: Wishes, told: Needs, scale: dict[str, float]) -> Iterator[str]:
    place = told.place
    yield (
        f"{_count(told.chunks)} live chunks of {_count(wishes.documents)} documents,"
        f" {wishes.storage}({wishes.dimensions}), {wishes.index}"
    )
    yield from _part("Disk")
    for name, held in told.disk.items():
        share = held / told.disk_total
        here = f", {scale[name]:.2f} times what is computed, as here" if name in scale else ""
        yield _row(name, _bytes(held), f"{share:.0%}{here}")
    yield _row("all", _bytes(told.disk_total), f"and {_bytes(told.build_room)} to build an index anew, and the WAL")
    yield from _part("Memory, all machines")
    yield _row("all that searches read", _bytes(told.cached), "shared_buffers and the system's cache")
    reads = f"then a search reads about {told.disk_reads:.0f} rows from the disk"
    yield _row("vector and word indexes", _bytes(told.cached_indexes), reads)
    if told.build_memory:
        yield _row("while an index is built", _bytes(told.build_memory), "maintenance_work_mem")
    yield from _part("Machines for the database")
    yield _row(place.engine, f"{place.nodes:,}", _machines(wishes, told))
    parts = "partitions" if place.engine == "postgres" else "shards"
    yield _row(parts, f"{place.graphs:,}", "each has a vector index, and each search asks all of them")
    yield from _part("Searches")
    yield _row("dense", f"{told.dense_ms:,.1f} ms", "of the database's processors")
    yield _row("hybrid", f"{told.hybrid_ms:,.1f} ms")
    yield _row("web process and model", f"{told.web_ms:.1f} ms", "of a processor there")
    yield _row("by the clock", f"{told.clock_ms:,.1f} ms", "of one search, at least, while nothing else goes on")
    peak = f"at {wishes.searches_per_second:g} searches a second and today's changes, {wishes.busy:.0%} busy"
    yield _row("database's processors", f"{told.database_cores:,.1f}", peak)
    yield _row("web processes", f"{told.web_processes:,}", f"{_bytes(told.web_memory)} in all")
    yield from _part("The first load")
    yield _row("embedding", _hours(told.embed_seconds), "of processors with the packaged model")
    yield _row("", f"{told.embed_cores:,}", f"processors to be through in {wishes.load_hours:g} hours")
    yield _row("", f"{told.gpus:,}", f"GPUs in their place: {told.gpu_hours:,.1f} hours of one, by a published figure")
    yield _row("rows and words", _hours(told.load_seconds), "of the database's processors")
    yield _row("vector index", _hours(told.build_seconds), f"of processors, {told.build_hours:,.1f} hours by the clock")
    yield from _part("Keeping up")
    yield _row("chunks a day", _count(told.chunks_per_day), "embedded and published")
    yield _row("model", f"{told.model_cores:,.3f}", "processors, evenly over the day")
    yield _row("other work of workers", f"{told.worker_cores:,.3f}", "processors")
    if told.rebuilt_days is not None:
        yield _row("vector index anew", f"{told.rebuilt_days:,.0f} days", "each time a tenth of it is dead")
    if told.notes:
        yield from _part("Mind")
        yield from (f"  - {note}" for note in told.notes)


def _machines(wishes: Wishes, told: Needs) -> str:
    place = told.place
    each = f"of {_bytes(wishes.node_memory)} and {wishes.node_cores} processors"
    each += ", beside the coordinator" if place.engine == "citus" else ""
    each += f", and {place.replicas} read replicas" if place.replicas else ""
    return each if place.enough else f"{each}: not enough"


def _assumed(wishes: Wishes, scale: dict[str, float], constants: Constants) -> Iterator[str]:
    yield "Assumed"
    for each in fields(Wishes):
        if (value := getattr(wishes, each.name)) is not None:
            yield _row(each.name.replace("_", " "), _wish(each.name, value))
    yield ""
    yield "Constants (benchmarks/RESULTS.md; how to measure your own: docs/howto/capacity.md)"
    for name, constant in constants:
        yield _row(name.replace("_", " "), f"{constant:,.4g}", f"{constant.unit}; {constant.source}")


def _wish(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    return _bytes(value) if name == "node_memory" else f"{value:,.2f}".rstrip("0").rstrip(".")


def _part(name: str) -> list[str]:
    return ["", name]


def _row(name: str, value: str, told: str = "") -> str:
    return f"  {name:<26}{value:>14}  {told}".rstrip()


def _bytes(number: float) -> str:
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return f"{number / 2**20:,.1f} MiB"


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 360 else f"{seconds:,.0f} s"
