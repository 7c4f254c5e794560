"""XML that holds data, not prose: "name: value" lines, a block per record (see `outline`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

from apps.documents.parsing.build import Builder
from apps.documents.parsing.data import outline
from apps.documents.parsing.markup.xml_tree import Element, is_mixed, local, words

_PARAGRAPHS = re.compile(r"\n\s*\n")
_DATE = frozenset({"year", "month", "day", "season", "era", "string-date"})
_SPACE_ATTRIBUTE = "{http://www.w3.org/XML/1998/namespace}space"


def add(built: Builder, element: Element) -> None:
    """Blocks of what is in `element`; names above many records are headings."""
    if not len(element) or is_mixed(element):
        outline.add(built, outline.lines(value(element)))
    else:
        kids = ((local(kid), value(kid)) for kid in element)  # one at a time: all together take more than the tree
        outline.add_members(built, chain(_attributes(element), (pair for pair in kids if pair[1])))


def fact(element: Element, *, ids: bool = True) -> list[str]:
    """The lines of one element below its name; none where it says nothing."""
    found = value(element, ids=ids)
    return outline.lines(found, local(element)) if found else []


def value(element: Element, *, ids: bool = True) -> Any:
    """What an element says, in the shapes of `outline`; "" for nothing. Without `ids`, none of its "id" attributes."""
    attributes = _attributes(element)
    if attributes and not ids:
        attributes = [pair for pair in attributes if pair[0] != "id"]
    kids = element[:]  # held, because lxml makes an object of a child each time that one is asked for
    if not kids or is_mixed(element, kids):
        text = _text(element, kids)
        if not attributes:
            return text
    elif (text := date(kids) or "") == "":
        members = outline.Members(attributes)
        members += [(local(kid), found) for kid in kids if (found := value(kid, ids=ids))]
        return members
    if not attributes:
        return text
    shown = ", ".join(f"{name}={found}" for name, found in attributes)
    return f"{text} ({shown})" if text else shown


def date(parts: Sequence[Element]) -> str | None:
    """Year, month and day in this order, as far as they are there; None where there are others or no year."""
    if len(parts) > len(_DATE) or not all(local(each) in _DATE for each in parts):
        return None
    said = {local(each): words(each) for each in parts}
    if not said.get("year"):
        return None
    return "-".join(said[name].zfill(2) for name in ("year", "month", "day") if said.get(name))


def _attributes(element: Element) -> list[tuple[str, str]]:
    """Attributes without a namespace: those with one are for programs (xsi:type, xml:lang, xlink:href)."""
    found = element.items()
    return [(name, value.strip()) for name, value in found if name[0] != "{" and value.strip()] if found else found


def _text(element: Element, kids: Sequence[Element]) -> str:
    """All text of an element; blank lines are line breaks, other white space is layout unless it says otherwise."""
    text = "".join(element.itertext()) if kids else element.text or ""
    if "\n" not in text:
        return " ".join(text.split())
    if element.get(_SPACE_ATTRIBUTE) == "preserve":
        return text.strip("\n")
    return "\n".join(filter(None, (" ".join(part.split()) for part in _PARAGRAPHS.split(text))))
