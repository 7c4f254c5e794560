"""CSV, TSV and their kind: one table, a line per row.

The csv module reads the rows; which character separates the columns is found here, since its Sniffer takes commas in
a text for separators.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from apps.documents.parsing.build import Builder
from apps.documents.parsing.encoding import decode
from apps.documents.parsing.types import Parsed

FINGERPRINT = "delimited/1"

# A comma comes last: decimal commas and lists inside a cell are as regular as columns.
DELIMITERS = "\t;|,"
NONE = "\x1f"  # a delimiter that no text contains
SAMPLE, SAMPLE_ROWS = 64 * 1024, 200
LEAST_SHARE = 0.5  # of the rows that have the same number of columns
LONGEST_ROW = 1000  # lines; a quoted cell that runs over more was never meant to begin
SLICE, BATCH = 1024 * 1024, 128  # characters and rows read at a time
MAX_PREAMBLE = 20  # rows
_SEP = re.compile(r"\A\"?sep=([^\n])\"?\n", re.IGNORECASE)

csv.field_size_limit(sys.maxsize)


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """A table; lines above it that have one cell are paragraphs. Rows of a single column are paragraphs."""
    text = decode(data, declared=(charset,)).removeprefix("\ufeff")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace(NONE, "")
    if named := _SEP.match(text):  # what Excel writes for itself
        text = text[named.end() :]
    delimiter = named.group(1) if named else _delimiter(text, tabs=media_type == "text/tab-separated-values")
    built = Builder()
    rows = _rows(text, delimiter or NONE)
    if delimiter is None:
        for row in rows:
            built.paragraph("\n".join(row))
    else:
        built.table(_below_preamble(built, rows))
    return built.parsed(media_type=media_type, parser=FINGERPRINT)


def _below_preamble(built: Builder, rows: Iterator[list[str]]) -> Iterable[list[str]]:
    """The rows from the first one with two cells on; those above are a title or remarks."""
    for first in islice(rows, MAX_PREAMBLE):
        if sum(map(bool, first)) > 1:
            return chain([first], rows)
        built.paragraph("\n".join(first))
    return rows


def _delimiter(text: str, *, tabs: bool) -> str | None:
    """The separator by which most of the first rows have equally many columns, two or more; None where none does.

    One by which all have is taken in the order of DELIMITERS, else the one with the best share and most columns.
    """
    sample = text[:SAMPLE]
    if len(text) > SAMPLE and "\n" in sample:
        sample = sample[: sample.rfind("\n") + 1]
    if tabs and "\t" in sample:
        return "\t"
    best: tuple[float, str | None] = (0.0, None)
    for delimiter in DELIMITERS:
        if delimiter not in sample:
            continue
        counts = Counter(len(row) for row in islice(_rows(sample, delimiter), SAMPLE_ROWS) if any(row))
        if not counts:  # nothing but delimiters
            return delimiter
        columns, rows = max(counts.items(), key=lambda item: (item[1], item[0]))
        share = rows / counts.total()
        if columns < 2 or share < LEAST_SHARE:
            continue
        if share == 1 and counts.total() > 1:
            return delimiter
        best = max(best, (share * (1 - 1 / columns), delimiter), key=lambda each: each[0])
    return best[1]


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    """Rows of cells. From a quoted cell on that does not end within LONGEST_ROW lines, quotes mean nothing."""
    return chain.from_iterable(_batches(text, delimiter))


def _batches(text: str, delimiter: str) -> Iterator[Iterable[list[str]]]:
    """The same, some rows at a time while they are so few lines that none can be too long."""
    reader = csv.reader(_lines(text), delimiter=delimiter, skipinitialspace=delimiter != " ")
    read = 0
    while rows := list(islice(reader, BATCH)):
        if reader.line_num - read > LONGEST_ROW:
            yield _one_by_one(text, delimiter, read)
            return
        read = reader.line_num
        yield rows


def _one_by_one(text: str, delimiter: str, read: int) -> Iterator[list[str]]:
    """The rows behind `read` lines."""
    reader = csv.reader(islice(_lines(text), read, None), delimiter=delimiter, skipinitialspace=delimiter != " ")
    begin = 0
    for row in reader:
        if reader.line_num - begin > LONGEST_ROW:
            rest = islice(_lines(text), read + begin, None)
            yield from csv.reader(rest, delimiter=delimiter, quoting=csv.QUOTE_NONE)
            return
        begin = reader.line_num
        yield row


def _lines(text: str) -> Iterator[str]:
    """Lines with their line ends, a slice of the text at a time: a whole StringIO takes four bytes a character."""
    return chain.from_iterable(map(io.StringIO, _slices(text)))


def _slices(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start + SLICE) + 1 or len(text)
        yield text[start:end]
        start = end
