"""XML to a tree without its DTD: no entity is ever expanded by the parser, and nothing outside the file is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from html.entities import html5
from typing import Any

from lxml import etree

from apps.documents.parsing.encoding import decode
from apps.documents.parsing.normalise import clean
from apps.documents.parsing.types import ParseError

Element = Any  # lxml has no types

MAX_ENTITY, MAX_ENTITIES = 500, 1_000_000  # characters of an entity that is filled in, and of all of them
NAMES = 1024  # of elements that are kept as they are shown
_HEAD = 1024
_DOCTYPE_WITHIN = 64 * 1024
_DECLARATION = re.compile(r"\s*<\?xml\s[^>]{0,400}?\?>")
_ENCODING = re.compile(rb"\A\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]+)")
_DOCTYPE = re.compile(
    r"<!DOCTYPE(?:\"[^\"]*\"|'[^']*'|[^\[>\"'])*+(?:\[((?:<!--[\s\S]*?-->|\"[^\"]*\"|'[^']*'|[^\]\"'])*+)\]\s*)?>"
)
_ENTITY = re.compile(r"<!ENTITY\s+([A-Za-z_][\w.-]*)\s+(?:\"([^\"]*)\"|'([^']*)')\s*>")
_TAG = re.compile(r"<[^<>]*>")
_OTHER = re.compile(r"&(?!#|(?:amp|lt|gt|quot|apos);)[A-Za-z_]")
_REFERENCE = re.compile(
    # What is not closed runs to the end, so that no second look at the rest is taken.
    r"<!\[CDATA\[(?:[\s\S]*?\]\]>|[\s\S]*)|<!--(?:[\s\S]*?-->|[\s\S]*)|&(?!(?:amp|lt|gt|quot|apos);)([A-Za-z_][\w.-]*+);"
)
# ISO 8879 has names for the Greek letters that HTML has not.
_GREEK = "a α b β g γ d δ e ε z ζ ee η th θ i ι k κ l λ m μ n ν x ξ o ο p π r ρ s σ t τ u υ ph φ kh χ ps ψ oh ω sf ς"
_PAIRS = re.findall(r"(\w+) (\w)", _GREEK)
_MORE = {name + "gr": char for name, char in _PAIRS}
_MORE |= {("EE" if name == "ee" else name.title()) + "gr": char.upper() for name, char in _PAIRS}
LEFT_OUT = "Entities that the file does not spell out were left out."


def read(data: bytes, charset: str | None) -> tuple[Element, str, list[str]]:
    """(root element, the text it was read from, notes). Comments and processing instructions are not in the tree.

    Raises ParseError: "malformed" with line and column, "too_large", and what `decode` raises.
    """
    label = _ENCODING.match(data[:_HEAD])
    labels = [label.group(1).decode("ascii")] if label else []
    labels = [each for each in labels if not each.lower().startswith(("utf-16", "utf-32"))]  # it was read in ASCII
    text = decode(data, declared=(charset, *labels)).removeprefix("\ufeff")
    if not text or text.isspace():
        raise ParseError("empty", "The XML content has no text.")
    text, notes = _without_dtd(text)
    try:
        return _parsed(text), text, notes
    except etree.XMLSyntaxError as error:
        cleaned = clean(text)  # many programs write control characters, which XML forbids
        if cleaned == text:
            raise _refusal(error) from None
    try:
        return _parsed(cleaned), cleaned, notes
    except etree.XMLSyntaxError as error:
        raise _refusal(error) from None


def _refusal(error: etree.XMLSyntaxError) -> ParseError:
    if "depth" in str(error):
        return ParseError("malformed", "The XML is nested too deeply.")
    if "huge" in str(error).lower():
        return ParseError("too_large", "A text in the XML is too long.")
    line, column = error.position
    return ParseError("malformed", f"The XML is not well-formed at line {line}, column {column}.")


def _parsed(text: str) -> Element:
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        collect_ids=False,
    )
    return etree.fromstring(text.encode(), parser)


def _without_dtd(text: str) -> tuple[str, list[str]]:
    """The text without XML and document type declaration, entities filled in, and notes. Lines keep their numbers."""
    declaration = _DECLARATION.match(text)
    start = declaration.end() if declaration else len(text) - len(text.lstrip())
    lines = text.count("\n", 0, start)
    declared: dict[str, str] = {}
    at = text.find("<!DOCTYPE", start, start + _DOCTYPE_WITHIN)
    if at >= 0 and (doctype := _DOCTYPE.match(text, at)):
        for name, double, single in _ENTITY.findall(doctype.group(1) or ""):
            declared.setdefault(name, _TAG.sub("", double or single).replace("<", "&lt;"))
        gap = "\n" * doctype.group().count("\n")
        text = text[start:at] + gap + text[doctype.end() :]
    elif start:
        text = text[start:]
    notes: list[str] = []
    if _OTHER.search(text):
        text = _filled(text, declared, notes)
    return "\n" * lines + text, notes


def _filled(text: str, declared: dict[str, str], notes: list[str]) -> str:
    """References to entities replaced by what they say, if that is short and holds no other reference."""
    simple = {name: value for name, value in declared.items() if len(value) <= MAX_ENTITY and not _OTHER.search(value)}
    spent = 0

    def fill(match: re.Match[str]) -> str:
        nonlocal spent
        name = match.group(1)
        if name is None:  # CDATA or a comment
            return match.group()
        if name in simple and spent < MAX_ENTITIES:
            spent += len(simple[name])
            return simple[name]
        if name not in declared and (char := html5.get(name + ";") or _MORE.get(name)):
            return char.replace("&", "&amp;").replace("<", "&lt;")
        if LEFT_OUT not in notes:
            notes.append(LEFT_OUT)
        return ""

    return _REFERENCE.sub(fill, text)


def local(element: Element) -> str:
    """The element's name without its namespace."""
    return _local(element.tag)


@lru_cache(NAMES)
def _local(tag: Any) -> str:
    return tag[tag.rfind("}") + 1 :] if isinstance(tag, str) else ""


def children(element: Element, name: str) -> Iterator[Element]:
    """Children of that name in any namespace."""
    return element.iterchildren("{*}" + name)


def child(element: Element, *path: str) -> Element | None:
    """The first child of that name, of it the first child of the next, and so on."""
    found: Element | None = element
    for name in path:
        found = next(children(found, name), None)
        if found is None:
            return None
    return found


def words(element: Element | None) -> str:
    """All text below an element, white space collapsed."""
    if element is None:
        return ""
    text = "".join(element.itertext()) if len(element) else element.text
    return " ".join(text.split()) if text else ""


def is_mixed(element: Element, kids: Sequence[Element] | None = None) -> bool:
    """Does it have text of its own, beside or without children? `kids` are these where they are at hand."""
    text = element.text
    if text and not text.isspace():
        return True
    for each in element if kids is None else kids:
        tail = each.tail
        if tail and not tail.isspace():
            return True
    return False
