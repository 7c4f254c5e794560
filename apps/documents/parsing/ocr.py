"""Text in pictures, by the `tesseract` program where it is installed."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from apps.documents.parsing.types import ParseError

PAGE_SECONDS = 60
MISSING = "the tesseract program, which reads pictures, is not installed"
#: Of a line's words, 0 to 100: below it tesseract has read a pattern or a stain. Real lines are mostly above 80.
_LEAST_CONFIDENCE = 45
_WORD = "5"  # the level of a word in tesseract's TSV

#: Called before each picture: reading takes seconds, and whoever waits is told that it goes on.
before_each: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """The program, the folder of its models and the languages that it reads."""

    program: str
    models: Path
    languages: str


@lru_cache(maxsize=1)
def engine() -> Engine | None:
    """What is installed, or None. OCR_LANGUAGES in the environment ("eng+deu") names the languages to read."""
    program = shutil.which("tesseract")
    if program is None:
        return None
    try:
        listed = subprocess.run(
            [program, "--list-langs"], capture_output=True, text=True, timeout=10, check=True, env=_environment()
        ).stdout.split("\n")
    except (OSError, subprocess.SubprocessError):
        return None
    installed = [name for name in listed[1:] if name and name != "osd"]
    wanted = [name for name in os.environ.get("OCR_LANGUAGES", "eng").split("+") if name in installed]
    if not installed or '"' not in listed[0]:
        return None
    return Engine(program, Path(listed[0].split('"')[1]), "+".join(wanted or installed[:1]))


def required() -> Engine:
    """The same. Raises ParseError("unsupported") where there is none."""
    found = engine()
    if found is None:
        raise ParseError("unsupported", f"The content is a picture, and {MISSING}.")
    return found


def pgm(width: int, height: int, pixels: bytes) -> bytes:
    """A picture of one byte per pixel, black to white, in the plainest format there is."""
    return b"P5 %d %d 255\n" % (width, height) + pixels


def read(picture: bytes) -> list[str]:
    """The paragraphs of a PGM in reading order; lines of a paragraph are lines of its text.

    Raises ParseError: "unsupported" where there is no tesseract, "corrupt" for what it cannot read, "timeout".
    """
    found = required()
    if before_each is not None:
        before_each()
    command = [found.program, "stdin", "stdout", "--tessdata-dir", str(found.models), "-l", found.languages, "tsv"]
    try:
        done = subprocess.run(command, input=picture, capture_output=True, timeout=PAGE_SECONDS, env=_environment())
    except subprocess.TimeoutExpired:
        raise ParseError("timeout", f"Reading a picture took longer than {PAGE_SECONDS} seconds.") from None
    if done.returncode:
        raise ParseError("corrupt", "The picture is damaged or too large to be read.")
    return _paragraphs(done.stdout.decode("utf-8", "replace"))


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "OMP_THREAD_LIMIT": "1"}


def _paragraphs(table: str) -> list[str]:
    lines: dict[tuple[int, int, int], list[tuple[float, str]]] = {}
    for row in csv.DictReader(table.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE):
        if row.get("level") == _WORD and (row.get("text") or "").strip():
            place = (int(row["block_num"]), int(row["par_num"]), int(row["line_num"]))
            lines.setdefault(place, []).append((float(row["conf"]), row["text"]))
    paragraphs: dict[tuple[int, int], list[str]] = {}
    for place, words in lines.items():
        if sum(confidence for confidence, _ in words) >= _LEAST_CONFIDENCE * len(words):
            paragraphs.setdefault(place[:2], []).append(" ".join(word for _, word in words))
    return ["\n".join(texts) for texts in paragraphs.values()]
