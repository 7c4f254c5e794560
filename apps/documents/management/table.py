"""A table as commands print it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def aligned(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> Iterator[str]:
    """Lines with columns as wide as their widest cell. right: headings of numbers."""
    table = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = zip(headings, row, widths, strict=True)
        yield "  ".join(f"{cell:{'>' if name in right else '<'}{width}}" for name, cell, width in cells).rstrip()
