"""Formulas, charts and other documents inside an OpenDocument file."""

from __future__ import annotations

import zipfile

from lxml import etree

from apps.documents.parsing.archives.zipped import read_member
from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.types import ParseError

HREF = "{http://www.w3.org/1999/xlink}href"
_MATH = "{http://www.w3.org/1998/Math/MathML}"
FORMULA = f"{_MATH}math"


def xml(data: bytes) -> etree._Element:
    """The root of an XML file. Raises ParseError("malformed")."""
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise ParseError("malformed", "The OpenDocument content is not well-formed XML.") from error


class Objects:
    """The embedded documents of one file, each read once."""

    def __init__(self, archive: zipfile.ZipFile | None, built: Builder) -> None:
        self._archive = archive
        self._built = built
        self._roots: dict[str, etree._Element | None] = {}

    def root(self, element: etree._Element) -> etree._Element | None:
        """The root of what a `draw:object` shows, None where it cannot be had. A flat file holds it in the element."""
        if len(element):
            inside: etree._Element = element[0]
            return inside
        name = element.get(HREF, "").removeprefix("./").rstrip("/") + "/content.xml"
        if name not in self._roots and self._archive is not None:
            self._roots[name] = None
            try:
                self._roots[name] = xml(read_member(self._archive, name))
            except KeyError:  # a link to another file
                pass
            except ParseError:
                self._built.note("An embedded object is damaged and was left out.")
        return self._roots.get(name)


def formula_of(root: etree._Element) -> str:
    """A formula as it was typed, else its signs one after another."""
    typed = next(root.iter(f"{_MATH}annotation"), None)
    return inline(typed.text or "") if typed is not None else inline(" ".join(map(str, root.itertext())))
