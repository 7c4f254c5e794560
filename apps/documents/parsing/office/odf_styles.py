"""What the styles of an OpenDocument file say of its text: what is hidden, what is a heading, how lists count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lxml import etree

from apps.documents.parsing.numerals import formatted

_NS = "urn:oasis:names:tc:opendocument:xmlns:"
OFFICE, STYLE, TEXT = (f"{{{_NS}{name}:1.0}}" for name in ("office", "style", "text"))
FO = f"{{{_NS}xsl-fo-compatible:1.0}}"
_FAMILIES = {f"{TEXT}list-style": "list", f"{TEXT}outline-style": "outline"}
_DEEPEST = 10  # list levels, ODF 1.3 part 3, 19.880
_LONGEST_CHAIN = 32  # styles that inherit from one another
#: What `numerals` calls the formats of ODF 1.3 part 3, 19.502.
_FORMATS = {"1": "decimal", "a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman"}
_MOST = 4000  # from here on letters and Roman figures are unreadable


def number(value: str | None, default: int, most: int) -> int:
    """An attribute's whole number from 0 to `most`, `default` where it is none."""
    return min(int(value), most) if value and value.isascii() and value.isdigit() and len(value) < 10 else default


@dataclass(slots=True)
class Level:
    """One level of a list style: a bullet, or a number with what stands around it."""

    format: str = ""  # "1", "a", "A", "i", "I", "" for none; "-" for a bullet
    prefix: str = ""
    suffix: str = ""
    start: int = 1
    shown: int = 1  # how many levels of numbers are shown


@dataclass(slots=True)
class Style:
    """One style of paragraphs or of characters, its parent's properties included once `Styles` has been asked."""

    parent: str = ""
    names: frozenset[str] = frozenset()  # its own and those of all it inherits from
    hidden: bool | None = None
    list_style: str | None = None
    outline: int = 0  # heading level, 0 for none
    resolved: bool = False


_NONE = Style(resolved=True)


class Styles:
    """The styles of one document by their names. Most are never asked for, so that each is read when it is."""

    def __init__(self) -> None:
        self._elements: dict[str, etree._Element] = {}  # by family and name
        self._read: dict[str, Style] = {}

    def read(self, root: etree._Element) -> None:
        """Take in the styles of one XML file; a later one goes before an earlier one of the same name."""
        for group in ("styles", "automatic-styles"):
            for parent in root.iterchildren(f"{OFFICE}{group}"):
                for element in parent.iterchildren(f"{STYLE}style", f"{TEXT}list-style", f"{TEXT}outline-style"):
                    family = _FAMILIES.get(element.tag) or element.get(f"{STYLE}family", "")
                    name = "" if family == "outline" else element.get(f"{STYLE}name", "")
                    self._elements[f"{family}:{name}"] = element

    def levels(self, name: str) -> dict[int, Level]:
        """The levels of a list style, from 1."""
        element = self._elements.get(f"list:{name}")
        return {} if element is None else _levels(element)

    def outline(self) -> dict[int, Level]:
        """How headings are numbered."""
        element = self._elements.get("outline:")
        return {} if element is None else _levels(element)

    def of(self, family: str, name: str | None) -> Style:
        """The style of that name ("paragraph" or "text"), with what it inherits."""
        if not name:
            return _NONE
        key = f"{family}:{name}"
        style = self._read.get(key) or self._own(key, name)
        if not style.resolved:
            self._inherit(style, family)
        return style

    def _own(self, key: str, name: str) -> Style:
        style = self._read[key] = Style(names=frozenset({name}))
        element = self._elements.get(key)
        if element is not None:
            properties = element.find(f"{STYLE}text-properties")
            display = None if properties is None else properties.get(f"{TEXT}display")
            style.parent = element.get(f"{STYLE}parent-style-name", "")
            style.hidden = None if display is None else display == "none"
            style.list_style = element.get(f"{STYLE}list-style-name")
            style.outline = number(element.get(f"{STYLE}default-outline-level"), 0, _DEEPEST)
        return style

    def _inherit(self, style: Style, family: str) -> None:
        ancestor = style
        for _ in range(_LONGEST_CHAIN):
            name = ancestor.parent
            if not name:
                break
            key = f"{family}:{name}"
            ancestor = self._read.get(key) or self._own(key, name)
            style.names |= {name}
            style.hidden = ancestor.hidden if style.hidden is None else style.hidden
            style.list_style = ancestor.list_style if style.list_style is None else style.list_style
            style.outline = style.outline or ancestor.outline
        style.resolved = True


def _levels(element: etree._Element) -> dict[int, Level]:
    levels = {}
    for each in element.iterchildren(etree.Element):
        depth = number(each.get(f"{TEXT}level"), 1, _DEEPEST)
        if each.tag == f"{TEXT}list-level-style-bullet":
            levels[depth] = Level("-" if each.get(f"{TEXT}bullet-char", "").strip() else "")
        elif each.tag == f"{TEXT}list-level-style-image":
            levels[depth] = Level("-")
        else:
            levels[depth] = Level(
                each.get(f"{STYLE}num-format", ""),
                each.get(f"{STYLE}num-prefix", ""),
                each.get(f"{STYLE}num-suffix", ""),
                number(each.get(f"{TEXT}start-value"), 1, 10**6),
                number(each.get(f"{TEXT}display-levels"), 1, _DEEPEST),
            )
    return levels


class Counter:
    """Numbers the items of the lists of one style, or the headings of a document."""

    def __init__(self, levels: dict[int, Level]) -> None:
        self.levels = levels
        self.counts: dict[int, int] = {}

    def next(self, depth: int, start: int | None = None) -> str:
        """The marker of the next item at `depth` (from 1), "" where it has none; `start` sets its number."""
        level = self.levels.get(depth, _PLAIN)
        following = self.counts.get(depth, level.start - 1) + 1
        self.counts[depth] = following if start is None else start
        self.restart(depth + 1)
        if level.format in ("", "-"):
            return level.format
        shown = range(max(1, depth - level.shown + 1), depth + 1)
        return level.prefix.lstrip() + ".".join(self._written(shown)) + level.suffix.rstrip()

    def restart(self, depth: int) -> None:
        """Forget the numbers at `depth` and deeper."""
        for each in [each for each in self.counts if each >= depth]:
            del self.counts[each]

    def _written(self, depths: Iterable[int]) -> Iterable[str]:
        for depth in depths:
            level = self.levels.get(depth, _PLAIN)
            if level.format not in ("", "-"):
                count = self.counts.get(depth, level.start)
                yield formatted(count, _FORMATS.get(level.format, "decimal") if count < _MOST else "decimal")


_PLAIN = Level("-")
