"""OpenDocument texts, slides and drawings (ISO/IEC 26300), zipped or flat.

odfdo writes the marks of notes and comments into the sentences they stand in and numbers every list from 1, so the
XML is walked here. libxml2 refuses more than 256 nested elements, which bounds the recursion.
"""

from __future__ import annotations

from lxml import etree

from apps.documents.parsing.archives.zipped import open_zip, read_member
from apps.documents.parsing.office.odf_objects import xml
from apps.documents.parsing.office.odf_styles import OFFICE
from apps.documents.parsing.office.odf_walk import DC, Walker
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "odf/1"


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Text, lists, tables, notes and comments; slides are pages. Title of the properties, else of the first heading.

    Raises ParseError: "corrupt" and "encrypted".
    """
    with open_zip(data) as archive:
        names = set(archive.namelist())
        if "META-INF/manifest.xml" in names and b"encryption-data" in read_member(archive, "META-INF/manifest.xml"):
            raise ParseError("encrypted", "The document is encrypted and needs a password.")
        if "content.xml" not in names:
            raise ParseError("corrupt", "The OpenDocument container has no content.")
        walker = Walker(archive)
        for name in ("styles.xml", "content.xml"):
            if name in names:
                root = xml(read_member(archive, name))
                walker.styles.read(root)
        title = _title(xml(read_member(archive, "meta.xml"))) if "meta.xml" in names else ""
        return _read(walker, root, title, media_type)


def parse_flat(root: etree._Element, *, media_type: str) -> Parsed:
    """The same of a flat OpenDocument file, whose root element is `office:document`."""
    walker = Walker(None)
    walker.styles.read(root)
    return _read(walker, root, _title(root), media_type)


def _read(walker: Walker, root: etree._Element, title: str, media_type: str) -> Parsed:
    walker.run(root)
    return walker.built.parsed(media_type=media_type, parser=FINGERPRINT, title=title.strip() or walker.title)


def _title(root: etree._Element) -> str:
    return root.findtext(f"{OFFICE}meta/{DC}title") or ""
