"""Lines of a PDF to blocks: paragraphs by vertical distance, headings by the size of their type, tables by cells."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from operator import attrgetter, sub
from statistics import median

from apps.documents.parsing.build import Builder
from apps.documents.parsing.pdf.text import Line

# A gap this many times the page's usual line pitch starts a paragraph; leading varies by a few percent.
_PARAGRAPH_GAP = 1.3
_TABLE_GAP = 3.0  # of the pitch between two rows of a table: rows may stand further apart than lines
_HEADING_SCALE = 1.2  # of the body's type size
_HEADING_LENGTH = 160  # characters
_MAX_HEADING_SHARE = 0.25  # of all blocks; above it the sizes mean something else (slides, forms)


def assemble(lines: list[Line]) -> Builder:
    """The blocks of a document, page by page."""
    pitches = _pitches(lines)
    rows = _rows_of_tables(lines, pitches)
    groups: list[list[Line]] = []
    previous, was_row = None, False
    for number, line in enumerate(lines):
        in_row = number in rows
        if in_row or was_row:
            starts = line.opens or not (in_row and was_row)
        else:
            starts = previous is None or _starts_block(previous, line, pitches)
        if starts:
            groups.append([line])
        else:
            groups[-1].append(line)
        previous, was_row = line, in_row
    tables = {id(lines[number]) for number in rows}
    levels = _heading_levels(lines, [group for group in groups if id(group[0]) not in tables])
    built = Builder()
    for group in groups:
        built.page = group[0].page
        if id(group[0]) in tables:
            built.add("table", "\n".join(" | ".join(cell for _, cell in line.cells) or line.text for line in group))
        elif level := _level_of(group, levels):
            built.add("heading", " ".join(line.text for line in group), level)
        else:
            built.add("paragraph", "\n".join(line.text for line in group))
    return built


def _pitches(lines: list[Line]) -> dict[int, float]:
    """Usual distance between consecutive baselines, per page, in points."""
    pitches: dict[int, float] = {}
    for page, on_page in groupby(lines, key=attrgetter("page")):
        heights = [line.y for line in on_page]
        if gaps := [gap for gap in map(sub, heights, heights[1:]) if 0.5 < gap < 100]:
            pitches[page] = median(gaps)
    return pitches


def _rows_of_tables(lines: list[Line], pitches: dict[int, float]) -> set[int]:
    """Numbers of the lines in tables: two or more rows below each other that begin a cell at the same place.

    A line of one cell between two such rows is a cell's second line.
    """
    rows: set[int] = set()
    latest = -1  # the last line with cells
    for number, line in enumerate(lines):
        if line.opens:
            latest = -1
        if not line.cells:
            continue
        between = number - latest - 1
        if latest >= 0 and between <= 1 and _same_columns(lines[latest], line):
            gap = lines[latest].y - line.y
            if 0 < gap <= _TABLE_GAP * (between + 1) * max(pitches.get(line.page, 0.0), line.size):
                rows.update(range(latest, number + 1))
        latest = number
    return rows


def _same_columns(above: Line, below: Line) -> bool:
    lefts = [left for left, _ in above.cells[1:]]
    return any(abs(left - other) < max(above.size, 4.0) for other, _ in below.cells[1:] for left in lefts) or (
        len(above.cells) == len(below.cells)
    )


def _starts_block(previous: Line, line: Line, pitches: dict[int, float]) -> bool:
    if line.opens:
        return True
    if previous.size and line.size and abs(previous.size - line.size) > 0.15 * previous.size:
        # A raised note mark or a drop cap changes size within a sentence; a heading changes it between two.
        return (
            previous.text[-1:] in ".!?:;。！？"
            or max(previous.size, line.size) > _HEADING_SCALE * previous.size
            or (previous.size > _HEADING_SCALE * line.size)
        )
    pitch = pitches.get(line.page, 0.0)
    gap = previous.y - line.y
    if gap < -pitch:
        return True  # upwards: next column
    return bool(pitch) and gap > _PARAGRAPH_GAP * pitch


def _heading_levels(lines: list[Line], groups: list[list[Line]]) -> dict[float, int]:
    """Type size -> heading level 1..6, largest first; empty when sizes do not tell headings apart."""
    weight: dict[float, int] = defaultdict(int)
    for line in lines:
        weight[line.size] += len(line.text)
    body = max(weight, key=weight.__getitem__) if weight else 0.0
    if body <= 0:
        return {}
    heads = [group for group in groups if _looks_like_heading(group, body)]
    if len(heads) > _MAX_HEADING_SHARE * len(groups):
        return {}
    sizes = sorted({group[0].size for group in heads}, reverse=True)
    return {size: min(rank, 6) for rank, size in enumerate(sizes, start=1)}


def _looks_like_heading(group: list[Line], body: float) -> bool:
    least = _HEADING_SCALE * body
    if len(group) > 3 or group[0].size < least or any(line.size < least for line in group):
        return False
    length = sum(len(line.text) for line in group)
    return 3 <= length <= _HEADING_LENGTH and any(char.isalpha() for line in group for char in line.text)


def _level_of(group: list[Line], levels: dict[float, int]) -> int:
    level = levels.get(group[0].size, 0)
    if not level or len(group) > 3 or not 3 <= sum(len(line.text) for line in group) <= _HEADING_LENGTH:
        return 0
    return level if len({line.size for line in group}) == 1 else 0
