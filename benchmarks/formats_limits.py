"""What reading costs at its edges: memory of the largest and the most hostile files, the sandbox for one page, and how
many of the good files are read.

Each file gets a fresh child. Peaks are the kernel's (VmHWM): of the child, whose address space is limited, and of this
process beyond what it had, in which a worker's share of the work is done. Linux only.
"""

from __future__ import annotations

import csv
import json
import os
import re
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import psutil

from apps.documents.parsing import ParseError, parse
from apps.documents.parsing.sandbox import Limits, Sandbox
from tests.support import hostile

from .corpus import passages

FILES = Path(__file__).resolve().parents[2] / "shared" / "data" / "files"
MEGABYTES = 120  # the sandbox takes up to 128
ROUNDS = 50


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    yield "one-page PDF, sandbox over the same parser without, p50", "<= 50 ms", _overhead()
    if FILES.is_dir():
        yield "good files whose phrase is in their text", "all", _good()
    bound = f"child <= {Limits().memory_bytes >> 20} MiB"
    for name, make in _FILES.items():
        yield name, bound, _edge(name, make())


def _overhead() -> str:
    content = hostile.pdf_of(1)
    times: dict[str, list[float]] = {"sandbox": [], "without": []}
    with Sandbox() as box:
        for _ in range(ROUNDS):
            for name, read in (("sandbox", box.parse), ("without", parse)):
                begun = perf_counter()
                read(content)
                times[name].append(perf_counter() - begun)
    with_it, alone = (median(each) * 1000 for each in times.values())
    return f"{with_it - alone:.1f} ms ({with_it:.1f} and {alone:.1f})"


def _good() -> str:
    with (FILES / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row["set"] == "good"]
    missed = []
    with Sandbox() as box:
        for row in rows:
            path = FILES / row["path"]
            try:
                found = _comparable(row["phrase_or_wrong"]) in _comparable(
                    box.parse(path.read_bytes(), filename=path.name).text
                )
            except ParseError:
                found = False
            missed += [] if found else [path.name]
    return f"{len(rows) - len(missed)} of {len(rows)}" + (f"; not {', '.join(missed)}" if missed else "")


def _comparable(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).replace("\u00ad", "").split()).casefold()


def _edge(name: str, content: bytes) -> str:
    with Sandbox() as box:
        others = psutil.Process().children()
        box.warm()
        (child,) = (each for each in psutil.Process().children() if each not in others)
        Path("/proc/self/clear_refs").write_text("5")  # begins the peak anew: proc(5)
        before, peaks, done = _peak(os.getpid()), [0.0], threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                peaks.append(_peak(child.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        begun = perf_counter()
        try:
            outcome = f"{len(box.parse(content, filename=name).text) / 1e6:.1f} M characters"
        except ParseError as error:
            outcome = error.code
        took = perf_counter() - begun
        done.set()
        watcher.join()
        here = _peak(os.getpid()) - before
    size = len(content) / 1e6
    return f"child {max(peaks):.0f} MiB, here +{here:.0f} MiB; {size:.1f} MB, {outcome} in {took:.1f} s"


def _peak(process: int) -> float:
    """MiB, 0 once it has ended."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:
        found = None
    return int(found.group(1)) / 1024 if found else 0.0


def _filled(piece: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    return before + piece * (MEGABYTES * 10**6 // len(piece)) + after


def _prose() -> bytes:
    return "\n\n".join(passages(1_500)).encode() + b"\n\n"


_RECORD = {"name": "item", "price": "9.50", "remark": "Stands on the lower shelf beside the window."}
_FILES: dict[str, Callable[[], bytes]] = {
    "bomb.zip": hostile.zip_bomb,
    "laughs.xml": hostile.laughs,
    "deep.json": hostile.deep_json,
    "deep.xml": hostile.deep_xml,
    "pages.pdf": hostile.pdf_of,
    "line.txt": lambda: hostile.long_line(MEGABYTES),
    "prose.txt": lambda: _filled(_prose()),
    "prose.md": lambda: _filled(_prose()),
    "prose.html": lambda: _filled(b"<p>" + _prose().replace(b"\n\n", b"<p>") + b"</p>"),
    "empty_lines.txt": lambda: _filled(b"\n", b"First"),
    "tags.html": lambda: _filled(b"<b>", after=b"deep"),
    "rows.csv": lambda: _filled(b"item,9.50,Stands on the lower shelf beside the window.\n", b"name,price,remark\n"),
    "records.jsonl": lambda: _filled(json.dumps(_RECORD).encode() + b"\n"),
    "records.json": lambda: _filled(json.dumps(_RECORD).encode() + b",", b"[", b"{}]"),
    "records.xml": lambda: _filled(
        b"<item><name>item</name><price>9.50</price><remark>Stands on the lower shelf.</remark></item>", b"<r>", b"</r>"
    ),
}
