"""Office Open XML packages: parts, relationships and the XML in them.

python-docx and python-pptx refuse a package that is only a little broken (one missing picture) and all in the strict
dialect, and know no footnotes, diagrams or threaded comments; so the parts are read here, with lxml.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from apps.documents.parsing.archives.zipped import open_zip, read_member
from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.types import ParseError

Element = Any  # lxml's stubs know neither its tags nor its iterators well enough

_SCHEMAS = "http://schemas.openxmlformats.org/"
W = f"{{{_SCHEMAS}wordprocessingml/2006/main}}"
P = f"{{{_SCHEMAS}presentationml/2006/main}}"
A = f"{{{_SCHEMAS}drawingml/2006/main}}"
S = f"{{{_SCHEMAS}spreadsheetml/2006/main}}"
R = f"{{{_SCHEMAS}officeDocument/2006/relationships}}"
MC = f"{{{_SCHEMAS}markup-compatibility/2006}}"
_RELATIONSHIP = f"{{{_SCHEMAS}package/2006/relationships}}Relationship"
_DC = "{http://purl.org/dc/elements/1.1/}"

# ISO/IEC 29500-1 (strict) names are those of ISO/IEC 29500-4 (transitional) in another tree.
_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/(\w+)")
_TRANSITIONAL = rb"http://schemas.openxmlformats.org/\1/2006/\2"

_GENERIC_TITLE = re.compile(
    r"(untitled|(word|powerpoint|excel)?\s*(document|presentation|workbook|slide|title|book)\s*\d*|microsoft \w+ - .*"
    r"|.*\.(docx?|dotx?|rtf|odt|pptx?|potx?|xlsx?|xltx?|pdf|tmp|txt))",
    re.IGNORECASE,
)


def transitional(data: bytes) -> bytes:
    """XML in the names of the transitional dialect."""
    return _STRICT.sub(_TRANSITIONAL, data) if b"purl.oclc.org/ooxml" in data else data


def xml(data: bytes, *, recover: bool = False) -> Element:
    """The root element, `transitional`. Raises etree.XMLSyntaxError."""
    data = transitional(data)
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        recover=recover,
    )
    return etree.fromstring(data, parser)


class Package:
    """The parts of one package, by name without a leading slash. Names are compared without regard to case."""

    def __init__(self, data: bytes, built: Builder) -> None:
        self._archive = open_zip(data)
        self._built = built
        self._names = {name.replace("\\", "/").lstrip("/").lower(): name for name in self._archive.namelist()}
        self._related: dict[str, dict[str, tuple[str, str]]] = {}

    def names(self, pattern: str) -> list[str]:
        """Names of the parts that match, those with a number in its order."""
        found = [name for name in self._names if re.fullmatch(pattern, name)]
        return sorted(found, key=lambda name: (len(name), name))

    def data(self, name: str) -> bytes | None:
        """The bytes of a part, None where there is none."""
        stored = self._names.get(name.lower())
        return None if stored is None else read_member(self._archive, stored)

    def part(self, name: str | None) -> Element | None:
        """The root element of a part, None where it is missing or too damaged; damage becomes a note."""
        try:
            data = self.data(name) if name else None
        except ParseError as error:
            if error.code != "corrupt":
                raise
            data = b""
        if data is None:
            return None
        try:
            return xml(data)
        except etree.XMLSyntaxError:
            self._built.note("A part of the document is damaged; some of it may be missing.")
        try:
            return xml(data, recover=True)
        except etree.XMLSyntaxError:
            return None

    def main(self, otherwise: str) -> tuple[str, Element]:
        """(name, root element) of the main part, which is `otherwise` by custom. Raises ParseError("corrupt")."""
        for name in (*self.related("", "officeDocument"), otherwise):
            root = self.part(name)
            if root is not None:
                return name, root
        raise ParseError("corrupt", "The document's main part is missing or damaged.")

    def related(self, part: str, kind: str) -> list[str]:
        """Names of the parts that `part` refers to by a relationship whose type ends in `kind`."""
        return [target for type_, target in self._relations(part).values() if type_ == kind.lower()]

    def target(self, part: str, key: str | None) -> str | None:
        """Name of the part that relationship `key` of `part` leads to, None where it leads nowhere."""
        return self._relations(part).get(key or "", ("", None))[1]

    def title(self) -> str | None:
        """The title among the document's properties, unless it is one that programs give by themselves."""
        for name in (*self.related("", "core-properties"), "docProps/core.xml"):
            root = self.part(name)
            if root is not None:
                title = inline(root.findtext(f"{_DC}title") or "")
                return title if title and not _GENERIC_TITLE.fullmatch(title) else None
        return None

    def _relations(self, part: str) -> dict[str, tuple[str, str]]:
        """Relationship id -> (last word of its type in lower case, name of the part); external ones are left out."""
        if part not in self._related:
            folder, name = posixpath.split(part)
            root = self.part(posixpath.join(folder, "_rels", f"{name}.rels"))
            found = {}
            for each in () if root is None else root.iter(_RELATIONSHIP):
                if each.get("TargetMode") != "External" and each.get("Target"):
                    target = posixpath.normpath(posixpath.join("/", folder, each.get("Target").replace("\\", "/")))
                    found[each.get("Id")] = (each.get("Type", "").rpartition("/")[2].lower(), target.lstrip("/"))
            self._related[part] = found
        return self._related[part]


def chosen(alternatives: Element) -> Iterator[Element]:
    """Children of the first mc:Choice that holds any, else those of mc:Fallback."""
    for name in ("Choice", "Fallback"):
        for branch in alternatives.iterfind(MC + name):
            if len(branch):
                return iter(branch)
    return iter(())


def is_on(element: Element | None, attribute: str = W + "val") -> bool:
    """A toggle such as <w:vanish/>: there, and not said to be off."""
    return element is not None and element.get(attribute, "1").lower() not in ("0", "false", "off", "none")


def figure(value: float) -> str:
    """A number as Excel shows it in full: 15 significant digits, no ".0"."""
    text = f"{value:.15g}"
    if "e" not in text:
        return text if text != "-0" else "0"
    mantissa, _, power = text.partition("e")
    places = len(mantissa.partition(".")[2])
    return f"{value:.{max(0, places - int(power))}f}" if -12 <= int(power) < 0 else f"{mantissa}E{int(power):+d}"
