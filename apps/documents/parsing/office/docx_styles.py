"""What the styles and the numbering of a Word document say of a paragraph: heading, list item, code, hidden."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from apps.documents.parsing.numerals import formatted
from apps.documents.parsing.office.ooxml import Element, W, is_on

MAX_CHAIN = 20  # styles based on styles
MAX_NUMBER = 32_767  # as Word counts
LONGEST_MARKER = 255  # characters
DEEPEST = 8  # of the nine levels of a list, from 0

_HEADING = re.compile(r"heading\s*([1-9])", re.IGNORECASE)
_CONTENTS = re.compile(r"toc\s*([1-9])", re.IGNORECASE)
_CODE = frozenset({"html preformatted", "preformatted text", "source code", "code", "code block", "macro text"})
_REFERENCE = re.compile(r"%([1-9])")


@dataclass(frozen=True, slots=True)
class Style:
    """`level`: of a heading, 0 for none; `contents`: of an entry in a table of contents, 0 for none."""

    level: int = 0
    title: bool = False
    contents: int = 0
    code: bool = False
    hidden: bool = False
    list_id: str = ""
    list_level: int | None = None


class Styles:
    """The styles of a document by id, each with what it inherits."""

    def __init__(self, root: Element | None) -> None:
        styles = [] if root is None else list(root.iterfind(W + "style"))
        self._elements = {style.get(W + "styleId"): style for style in styles}
        self._known: dict[str, Style] = {}
        paragraphs = [style for style in styles if style.get(W + "type") == "paragraph"]
        usual = (each for each in paragraphs if each.get(W + "default") in ("1", "true", "on"))
        self._usual = next((each.get(W + "styleId") for each in usual), "")

    def get(self, style_id: str | None) -> Style:
        """The style of that id; of None, the one that paragraphs have by default."""
        style_id = style_id or self._usual
        if style_id not in self._known:
            self._known[style_id] = self._resolved(style_id)
        return self._known[style_id]

    def _resolved(self, style_id: str) -> Style:
        chain: list[Element] = []
        following: str | None = style_id
        while following in self._elements and len(chain) < MAX_CHAIN:
            chain.append(self._elements[following])
            based_on = chain[-1].find(W + "basedOn")
            following = None if based_on is None else based_on.get(W + "val")
        style = _named(style_id) if not chain else Style()
        for element in reversed(chain):
            style = _applied(style, element)
        return style


def _named(name: str) -> Style:
    """What a style's own name says; `heading 1` and `Title` are called so in Word of any language."""
    name = name.strip()
    if found := _HEADING.fullmatch(name):
        return Style(level=int(found.group(1)))
    if found := _CONTENTS.fullmatch(name):
        return Style(contents=int(found.group(1)))
    if name.lower() == "title":
        return Style(level=1, title=True)
    return Style(code=name.lower() in _CODE)


def _applied(style: Style, element: Element) -> Style:
    """`style` with what one more style over it says."""
    name = element.find(W + "name")
    named = _named("" if name is None else name.get(W + "val", ""))
    if named.level or named.contents or named.code:
        # Only what it is called is new: numbering and visibility go on.
        style = replace(style, level=named.level, title=named.title, contents=named.contents, code=named.code)
    properties = element.find(W + "pPr")
    if properties is not None:
        outline = outline_level(properties)
        if outline is not None and not style.title:
            style = replace(style, level=outline)
        list_id, level = list_of(properties)
        style = replace(
            style,
            list_id=style.list_id if list_id is None else list_id,
            list_level=style.list_level if level is None else level,
        )
    hidden = element.find(f"{W}rPr/{W}vanish")
    return style if hidden is None else replace(style, hidden=is_on(hidden))


def outline_level(properties: Element) -> int | None:
    """Heading level 1..9 that a w:pPr gives, 0 for body text, None where it says nothing."""
    outline = properties.find(W + "outlineLvl")
    value = None if outline is None else outline.get(W + "val")
    return None if value is None or not value.isdecimal() else (int(value) + 1 if int(value) < 9 else 0)


def list_of(properties: Element) -> tuple[str | None, int | None]:
    """(numbering id, level from 0) of a w:pPr, None for what it does not say; the id "0" is for no list."""
    numbering = properties.find(W + "numPr")
    if numbering is None:
        return None, None
    list_id, level = numbering.find(W + "numId"), numbering.find(W + "ilvl")
    depth = "" if level is None else level.get(W + "val", "")
    return (
        None if list_id is None else list_id.get(W + "val"),
        min(int(depth), DEEPEST) if depth.isdecimal() else None,
    )


@dataclass(slots=True)
class _Level:
    form: str = "decimal"
    text: str = ""
    start: int = 1
    restart: int | None = None  # after which level, from 1; 0 for never
    decimal: bool = False  # all numbers in it in arabic figures
    style: str = ""


class _List:
    """Levels of one numbering, and how far it has counted: together with the others of the same abstract one."""

    def __init__(self, levels: dict[int, _Level], counts: dict[int, int]) -> None:
        self.levels = levels
        self.counts = counts

    def next(self, depth: int) -> str:
        """Counts one item at `depth` and gives its marker."""
        level = self.levels.get(depth) or _Level()
        self.counts[depth] = self.counts.get(depth, level.start - 1) + 1
        for deeper in range(depth + 1, DEEPEST + 1):
            restart = self.levels[deeper].restart if deeper in self.levels else None
            if restart is None or depth < restart:
                self.counts.pop(deeper, None)
        if level.form == "bullet":
            return "-"
        return _REFERENCE.sub(lambda match: self._count(int(match.group(1)) - 1, level), level.text).strip()

    def _count(self, depth: int, shown_in: _Level) -> str:
        level = self.levels.get(depth) or _Level()
        count = self.counts.setdefault(depth, level.start)
        return formatted(count, "decimal" if shown_in.decimal and level.form != "none" else level.form)


def _levels(parent: Element) -> dict[int, _Level]:
    """The levels (w:lvl) among the children of an element, by depth from 0."""
    levels = {}
    for element in parent.iterfind(W + "lvl"):
        depth = element.get(W + "ilvl", "")
        if depth.isdecimal() and int(depth) <= DEEPEST:
            said = {child.tag: child.get(W + "val", "") for child in element}
            restart = said.get(W + "lvlRestart", "")
            levels[int(depth)] = _Level(
                said.get(W + "numFmt", "decimal"),
                said.get(W + "lvlText", "")[:LONGEST_MARKER],
                _number(said.get(W + "start", "1")),
                int(restart) if restart.isdecimal() else None,
                is_on(element.find(W + "isLgl")),
                said.get(W + "pStyle", ""),
            )
    return levels


def _value(parent: Element, name: str) -> str | None:
    child = parent.find(W + name)
    return None if child is None else child.get(W + "val")


class Numbering:
    """The lists of a document. `marker` has to be asked in the order of the paragraphs: it counts."""

    def __init__(self, root: Element | None) -> None:
        self._lists: dict[str, _List] = {}
        self._restarts: dict[str, dict[int, int]] = {}
        if root is None:
            return
        elements = list(root.iterfind(W + "abstractNum"))
        levels = {each.get(W + "abstractNumId"): _levels(each) for each in elements}
        shared = {_value(each, "styleLink"): each.get(W + "abstractNumId") for each in elements}
        for each in elements:
            if (link := _value(each, "numStyleLink")) in shared and link:
                levels[each.get(W + "abstractNumId")] = levels[shared[link]]
        counts: dict[str, dict[int, int]] = {}
        for each in root.iterfind(W + "num"):
            list_id, key = each.get(W + "numId"), _value(each, "abstractNumId")
            if list_id and key and key in levels:
                own = _List(dict(levels[key]), counts.setdefault(key, {}))
                for override in each.iterfind(W + "lvlOverride"):
                    own.levels.update(_levels(override))
                    start, depth = _value(override, "startOverride"), override.get(W + "ilvl", "")
                    if start and depth.isdecimal():
                        self._restarts.setdefault(list_id, {})[int(depth)] = _number(start)
                self._lists[list_id] = own

    def marker(self, list_id: str, depth: int | None, style_id: str | None) -> tuple[int, str] | None:
        """(depth from 0, marker) of the next item of a list; None where there is no such list."""
        counting = self._lists.get(list_id)
        if counting is None:
            return None
        if depth is None:
            linked = (at for at, level in counting.levels.items() if level.style and level.style == style_id)
            depth = next(linked, 0)
        for at, start in self._restarts.pop(list_id, {}).items():  # when the list is used for the first time
            counting.counts[at] = start - 1
        return depth, counting.next(depth)


def _number(text: str) -> int:
    return min(int(text), MAX_NUMBER) if text.isdecimal() else 1
