"""RSS (0.9 to 2.0) and Atom: each entry under its title. Entries hold escaped HTML, which `html` reads."""

from __future__ import annotations

import re

from lxml import etree

from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.markup import html
from apps.documents.parsing.markup.xml_data import fact
from apps.documents.parsing.markup.xml_tree import Element, child, children, local, words
from apps.documents.parsing.types import Parsed, ParseError

#: From the shortest form of an entry's text to the longest.
_BODIES = ("description", "summary", "subtitle", "tagline", "content", "encoded")
_LEFT_OUT = frozenset({"title", "item", "items", "entry", "image", "textInput", "skipHours", "skipDays", "cloud"})
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|&#?\w+;")
_XHTML = "{http://www.w3.org/1999/xhtml}"


def add(built: Builder, root: Element) -> str | None:
    """Adds the feed; returns its title, "" where it has none and None where this is no feed."""
    channel = child(root, "channel")
    head = root if channel is None else channel
    entries = [*children(root, "item"), *children(head, "entry")] or [*children(head, "item")]
    if channel is None and not entries and local(root) != "feed":
        return None
    title = _title(head)
    built.heading(title, 1)
    _add_rest(built, head)
    for entry in entries:
        built.heading(_title(entry), 2)
        _add_rest(built, entry)
    return title


def _title(element: Element) -> str:
    found = child(element, "title")
    part = None if found is None else _body(found)
    return "" if part is None else inline(part if isinstance(part, str) else part.text)


def _add_rest(built: Builder, element: Element) -> None:
    """Who and when as lines, then the text, the longest form of it and the others if they say something else."""
    facts: list[str] = []
    bodies: list[Element] = []
    for each in element:
        name = local(each)
        if name in _BODIES and (name != "content" or words(each)):
            bodies.append(each)
        elif name == "link":
            address = words(each) or (each.get("href") or "")
            facts += [f"link: {address}"] if address and each.get("rel", "alternate") == "alternate" else []
        elif name not in _LEFT_OUT:
            facts += fact(each)
    built.paragraph("\n".join(facts))
    read = [part for each in sorted(bodies, key=lambda each: _BODIES.index(local(each))) if (part := _body(each))]
    texts = [inline(part if isinstance(part, str) else part.text) for part in read]
    for at, part in enumerate(read):
        if any(texts[at].rstrip(".… ") in longer for longer in texts[at + 1 :]):
            continue
        if isinstance(part, str):
            built.paragraph(part)
        else:
            built.graft(part, under=2)


def _body(element: Element) -> str | Parsed | None:
    """A text as it is, or read as HTML where it is escaped HTML or XHTML."""
    if len(element):
        inner = element.find(_XHTML + "div")
        source = etree.tostring(element if inner is None else inner, encoding="unicode", with_tail=False)
    else:
        source = element.text or ""
        if element.get("type") == "text" or not _MARKUP.search(source):
            return source.strip() or None
    try:
        return html.parse(f"<body>{source}</body>".encode(), media_type="text/html", charset="utf-8")
    except ParseError:  # nothing but pictures
        return None
