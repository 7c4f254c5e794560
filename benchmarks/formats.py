"""Reading documents beside the bare library of their format: time in the sandbox over the library's own.

Files of more than 100 kB: real ones where the shared files are at hand, and made ones. All sides take turns, and of
each the quickest time counts. Where the shortest use of a library gives a text that is hard to use, its ratio is shown
behind that of a usable one ("naive"). Where no library reads a format, the other side is the product's own parser in
the same process, so that the ratio is the price of the sandbox.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

from apps.documents.parsing import parse
from apps.documents.parsing.sandbox import close_pool, parse_sandboxed

from . import formats_bare as bare
from .formats_made import documents

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
ROUNDS, SECONDS = 9, 6.0  # of one document, whichever ends first, but three rounds
ASKED = "<= 1.25 times the bare library"

Read = Callable[[bytes], object]

_CHOSEN: tuple[tuple[str, str, Read], ...] = (
    ("kg__HHS2022.pdf", "PDFium", bare.pdf),
    ("llama__598us1r5_1b72.pdf", "PDFium", bare.pdf),
    ("docling__redp5110_sampled.pdf", "PDFium", bare.pdf),
    ("docling__right_to_left_03.pdf", "PDFium", bare.pdf),
    ("unstructured__loremipsum-flat.pdf", "PDFium and tesseract", bare.scan),
    ("unstructured__double-column-A.jpg", "tesseract", bare.picture),
    ("markitdown__test_wikipedia.html", "lexbor", bare.html),
    ("docling__wiki_duck.html", "lexbor", bare.html),
    ("docling__elife-56337.xml", "lxml", bare.xml_article),
    ("unstructured__winter-sports.epub", "zipfile and lexbor", bare.epub),
    ("markitdown__test.docx", "python-docx", bare.word),
    ("tika__testWORD_2006ml.docx", "python-docx", bare.word),
    ("markitdown__test.pptx", "python-pptx", bare.slides),
    ("unstructured__science-exploration-1p.pptx", "python-pptx", bare.slides),
)
_BESIDE: dict[str, tuple[str, Read]] = {
    ".docx": ("python-docx", bare.word),
    ".pptx": ("python-pptx", bare.slides),
    ".xlsx": ("calamine", bare.sheets),
    ".xls": ("calamine", bare.sheets),
    ".odt": ("odfdo", bare.open_document),
    ".ods": ("calamine", bare.sheets),
    ".csv": ("csv", bare.delimited),
    ".json": ("json", bare.as_json),
    ".jsonl": ("json", bare.json_lines),
    ".yaml": ("PyYAML in C", bare.as_yaml),
    ".ipynb": ("json", bare.notebook),
    ".xml": ("lxml", bare.xml_records),
    ".md": ("markdown-it", bare.markdown),
    ".rst": ("docutils", bare.rst),
    ".eml": ("email", bare.mail),
    ".mbox": ("mailbox and email", bare.mails),
    ".msg": ("olefile", bare.outlook),
    ".zip": ("zipfile", bare.archive),
    ".py": ("open().read()", bare.text),
}
_BY_NAME: dict[str, tuple[str, Read]] = {
    "made.txt": ("open().read()", bare.text),
    "slack.zip": ("zipfile and json", bare.slack),
}


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    wanted = os.environ.get("FORMATS", "").split()  # parts of names
    gc.collect()
    gc.freeze()  # what Django has loaded is not searched on the bare side's time
    for name, content, label, alone in cases():
        if wanted and not any(each in name for each in wanted):
            continue
        ours = partial(parse_sandboxed, filename=name)
        parsed = parse_sandboxed(content, filename=name)  # the first of a format loads its parser
        sides: list[Read] = [alone, ours]
        if naive := bare.NAIVE.get(alone):
            sides.append(naive)
        for read in sides:
            read(content)
        theirs, our, *shortest = _turns(content, sides)
        pages = max((block.page or 0 for block in parsed.blocks), default=0)
        speed = f"{len(content) / 1e6 / our:.1f} MB/s" + (f", {pages / our:.0f} pages/s" if pages > 1 else "")
        times = f"{our * 1000:.1f} and {theirs * 1000:.1f} ms"
        flat = "".join(f"; naive {our / each:.2f} ({each * 1000:.1f} ms)" for each in shortest)
        figure = f"{name}, {len(content) / 1000:.0f} kB, beside {label}"
        yield figure, ASKED, f"{our / theirs:.2f} ({times}){flat}; {speed}"
    close_pool()


def _turns(content: bytes, sides: Sequence[Read]) -> list[float]:
    """The quickest of some rounds of each, seconds."""
    taken: list[list[float]] = [[] for _ in sides]
    started = perf_counter()
    while len(taken[0]) < 3 or (len(taken[0]) < ROUNDS and perf_counter() - started < SECONDS):
        if bare.unknown_text in sides:  # which remembers what it has judged: another sample each time
            first, gap, others = content.partition(b"\n\n")
            content = others + gap + first
        for read, times in zip(sides, taken, strict=True):
            begun = perf_counter()
            read(content)
            times.append(perf_counter() - begun)
    return list(map(min, taken))


def cases() -> Iterator[tuple[str, bytes, str, Read]]:
    """(file name, content, name of the bare library, its way to the text)"""
    good = SHARED / "files" / "good"
    for name, label, alone in _CHOSEN if good.is_dir() else ():
        if alone not in (bare.scan, bare.picture) or shutil.which("tesseract"):
            yield name, (good / name).read_bytes(), label, alone
    page = SHARED / "versions" / "celery__userguide_configuration"
    if page.is_dir():
        yield "configuration.rst", max(page.glob("*.txt")).read_bytes(), *_BESIDE[".rst"]
    for name, content in documents():
        yield name, content, *_beside(name)
    import _pydecimal  # source code that is at hand everywhere

    yield "_pydecimal.py", Path(_pydecimal.__file__).read_bytes(), *_BESIDE[".py"]


def _beside(name: str) -> tuple[str, Read]:
    suffix = Path(name).suffix
    if suffix == ".txt" and name not in _BY_NAME:
        return "charset-normalizer", bare.unknown_text
    own = ("the same parser without a sandbox", partial(parse, filename=name))
    return _BY_NAME.get(name) or _BESIDE.get(suffix) or own
