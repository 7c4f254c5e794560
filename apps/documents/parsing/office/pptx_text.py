"""Where the shapes of a slide stand and which of their paragraphs are items of a list.

A placeholder says neither by itself: it follows the one of the same kind in the slide's layout, that one the master's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from apps.documents.parsing.build import Builder
from apps.documents.parsing.numerals import formatted
from apps.documents.parsing.office.drawing import text_of
from apps.documents.parsing.office.ooxml import MC, A, Element, P, chosen

TITLES = ("title", "ctrTitle")
FURNITURE = ("dt", "ftr", "hdr", "sldNum", "sldImg")
SAME_ROW = 150_000  # EMU, 4 mm: shapes that close in height stand beside each other
_SHAPES = frozenset(P + name for name in ("sp", "grpSp", "graphicFrame", "pic", "cxnSp"))
_AUTOMATIC = re.compile(r"(arabic|alphaLc|alphaUc|romanLc|romanUc|ea1\w*|circleNum\w*)(Period|ParenR|ParenBoth)?.*")
_FORMS = {"alphaLc": "lowerLetter", "alphaUc": "upperLetter", "romanLc": "lowerRoman", "romanUc": "upperRoman"}
_AROUND = {"Period": ("", "."), "ParenR": ("", ")"), "ParenBoth": ("(", ")"), None: ("", "")}
_BULLETS = frozenset(A + name for name in ("buNone", "buChar", "buAutoNum", "buBlip"))

#: (type, index) of a placeholder, None for any other shape.
Kind = tuple[str, str | None] | None


def shapes(parent: Element) -> Iterator[Element]:
    """The shapes of a tree or group that are shown, in the order they were drawn."""
    for child in parent:
        if child.tag == f"{MC}AlternateContent":
            yield from shapes(list(chosen(child)))
        elif child.tag in _SHAPES:
            properties = child.find(f"*/{P}cNvPr")
            if properties is None or properties.get("hidden") not in ("1", "true"):
                yield child


def placeholder(shape: Element) -> Kind:
    """(type, index) of a placeholder, None for any other shape."""
    found = shape.find(f"*/{P}nvPr/{P}ph")
    return None if found is None else (found.get("type", "obj"), found.get("idx"))


class Patterns:
    """The layout of a slide and its master: what placeholders inherit."""

    def __init__(self, layout: Element | None, master: Element | None) -> None:
        self._shapes = [
            [(placeholder(shape), shape) for shape in (() if root is None else root.iter(P + "sp"))]
            for root in (layout, master)
        ]
        self._styles = None if master is None else master.find(P + "txStyles")
        self._found: dict[tuple[str, str | None], list[Element]] = {}

    def of(self, kind: Kind) -> list[Element]:
        """The placeholders that one of this (type, index) follows, nearest first."""
        if kind is None:
            return []
        if kind not in self._found:
            layout, master = self._shapes
            found = [(own, shape) for own, shape in layout if _follows(kind, own)][:1]
            name = found[0][0][0] if found and found[0][0] else kind[0]
            base = {"ctrTitle": "title", "title": "title"}.get(name, name if name in FURNITURE else "body")
            found += [(own, shape) for own, shape in master if own and own[0] == base][:1]
            self._found[kind] = [shape for _, shape in found]
        return self._found[kind]

    def style(self, kind: Kind) -> Element | None:
        """The master's list of levels for text in such a placeholder."""
        if self._styles is None or kind is None:
            return None
        return self._styles.find(P + ("titleStyle" if kind[0] in TITLES else "bodyStyle"))


def _follows(kind: tuple[str, str | None], pattern: Kind) -> bool:
    if pattern is None:
        return False
    if kind[1] is not None:
        return pattern[1] == kind[1]
    return pattern[0] == kind[0] or (kind[0] in TITLES and pattern[0] in TITLES)


def in_reading_order(found: Iterable[Element], patterns: Patterns) -> list[tuple[Kind, Element]]:
    """Titles first, then from top to bottom, those of one height from left to right; each with what it is."""
    titles: list[tuple[Kind, Element]] = []
    placed: list[tuple[int, int, int, tuple[Kind, Element]]] = []
    for order, shape in enumerate(found):
        kind = placeholder(shape)
        if kind and kind[0] in TITLES:
            titles.append((kind, shape))
        else:
            x, y = next(filter(None, map(_offset, (shape, *patterns.of(kind)))), (0, 0))
            placed.append((y, x, order, (kind, shape)))
    placed.sort(key=lambda each: each[:3])
    rows: list[list[tuple[int, int, int, tuple[Kind, Element]]]] = []
    for each in placed:
        if not rows or each[0] > rows[-1][0][0] + SAME_ROW:
            rows.append([])
        rows[-1].append(each)
    return titles + [each[3] for row in rows for each in sorted(row, key=lambda each: each[1:3])]


def _offset(shape: Element) -> tuple[int, int] | None:
    """(x, y) of a shape's upper left corner in EMU."""
    for path in (f"{P}spPr/{A}xfrm/{A}off", f"{P}grpSpPr/{A}xfrm/{A}off", f"{P}xfrm/{A}off"):
        found = shape.find(path)
        if found is not None:
            try:
                return int(found.get("x", "0")), int(found.get("y", "0"))
            except ValueError:
                return None
    return None


def write_text(built: Builder, shape: Element, kind: Kind, patterns: Patterns) -> None:
    """The paragraphs of a shape; consecutive items become one list."""
    body = shape.find(P + "txBody")
    if body is None:
        return
    styles = [body.find(A + "lstStyle")]
    styles += [each.find(f"{P}txBody/{A}lstStyle") for each in patterns.of(kind)]
    levels = [style for style in (*styles, patterns.style(kind)) if style is not None]
    items: list[tuple[int, str, str]] = []
    counts: dict[int, int] = {}
    for paragraph in body.iterfind(A + "p"):
        text = text_of(paragraph)
        if not text.strip():
            continue
        depth, bullet = _bullet(paragraph, levels)
        counts = {
            level: count for level, count in counts.items() if level < depth or (level == depth and _counts(bullet))
        }
        if bullet is None:
            built.items(items)
            items = []
            built.paragraph(text)
        else:
            items.append((depth, _marker(bullet, depth, counts), text))
    built.items(items)


def _counts(bullet: Element | None) -> bool:
    return bullet is not None and bullet.tag == A + "buAutoNum"


def _bullet(paragraph: Element, levels: list[Element]) -> tuple[int, Element | None]:
    """(level from 0, the element that says what its bullet is) of a paragraph; None for none."""
    properties = paragraph.find(A + "pPr")
    level = "0" if properties is None else properties.get("lvl", "0")
    depth = min(int(level), 8) if level.isdecimal() else 0
    for style in (properties, *(style.find(f"{A}lvl{depth + 1}pPr") for style in levels)):
        for child in () if style is None else style:
            if child.tag in _BULLETS:
                return depth, None if child.tag == A + "buNone" else child
    return depth, None


def _marker(bullet: Element, depth: int, counts: dict[int, int]) -> str:
    if not _counts(bullet):
        return "-"
    start = bullet.get("startAt", "1")
    counts[depth] = counts.get(depth, int(start) - 1 if start.isdecimal() else 0) + 1
    form, around = "decimal", "Period"
    if found := _AUTOMATIC.fullmatch(bullet.get("type", "")):
        form, around = _FORMS.get(found.group(1), "decimal"), found.group(2)
    before, after = _AROUND[around]
    return before + formatted(counts[depth], form) + after
