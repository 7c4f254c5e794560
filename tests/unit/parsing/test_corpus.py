"""Every real file beside the repository: the good ones give their phrase, the bad ones a clear outcome."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.documents.parsing import ParseError, ocr, parse
from apps.documents.parsing.sandbox import Limits, Sandbox
from tests.support.parsed import check, comparable

FILES = Path(__file__).resolve().parents[4] / "shared" / "data" / "files"
#: Text in pictures: their phrases need tesseract.
PICTURES = (".png", ".jpg", "loremipsum-flat.pdf", "docling__ocr_test.pdf")
needs_files = pytest.mark.skipif(not FILES.is_dir(), reason="the shared test files lie beside the repository")


def manifest(which: str) -> list[dict[str, str]]:
    if not FILES.is_dir():
        return []
    with (FILES / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row for row in rows if row["set"] == which]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(Limits(wall_seconds=60)) as box:
        yield box


@needs_files
@pytest.mark.parametrize("row", manifest("good"), ids=lambda row: row["path"])
def test_every_good_file_gives_its_phrase(row: dict[str, str], box: Sandbox) -> None:
    path = FILES / row["path"]
    if row["path"].endswith(PICTURES) and ocr.engine() is None:
        pytest.skip("tesseract is not installed")
    parsed = box.parse(path.read_bytes(), filename=path.name)
    check(parsed)
    assert comparable(row["phrase_or_wrong"]) in comparable(parsed.text)
    nameless = parse(path.read_bytes())
    if path.suffix not in (".csv", ".md", ".txt"):  # what can only be told by its name
        assert nameless.parser == parsed.parser, "its content alone tells what it is"


@needs_files
@pytest.mark.parametrize("row", manifest("bad"), ids=lambda row: row["path"])
def test_no_bad_file_harms_the_sandbox_and_each_has_its_outcome(row: dict[str, str], box: Sandbox) -> None:
    path = FILES / row["path"]
    before, expect, code = max(1, box.started), row["expect"], "text"
    try:
        check(box.parse(path.read_bytes(), filename=path.name))
    except ParseError as error:
        code = error.code
    assert code == "text" or code in ParseError.CODES - {"crashed", "timeout", "unavailable"}
    if expect.startswith("refuse with"):
        assert code == "encrypted"
    elif expect.startswith("reported as having no text"):
        assert code == "empty"
    elif expect.startswith(("ingests", "text recovered")):
        assert code == "text"
    assert box.started == before, "the same child goes on"
