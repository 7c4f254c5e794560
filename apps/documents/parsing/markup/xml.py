"""XML of any vocabulary: documents as documents, feeds as entries, office formats in one file, and data as lines."""

from __future__ import annotations

from apps.documents.parsing.build import Builder
from apps.documents.parsing.markup import html, xml_data, xml_document, xml_feed, xml_office
from apps.documents.parsing.markup.xml_tree import Element, child, local, read, words
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "xml_text/2"

_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Text in the order of the document; the title is that of the vocabulary, where it has one.

    The names of the elements decide how they are read, in whatever namespace: JATS, DocBook, DITA, TEI, RSS, Atom,
    SVG, SpreadsheetML and WordprocessingML; anything else is prose if it has paragraphs, and data if not. Raises
    ParseError("malformed") with line and column.
    """
    root, text, notes = read(data, charset)
    name = local(root)
    if name == "html":
        return html.parse(text.encode(), media_type=media_type, charset="utf-8")
    if root.tag == _OFFICE + "document":
        from apps.documents.parsing.office import odf  # only for these: it loads a library

        return odf.parse_flat(root, media_type=media_type)
    built = Builder()
    for note in notes:
        built.note(note)
    title = _read(built, root, name)
    if notes and not built:
        raise ParseError("malformed", "All text of the XML is in entities that are not expanded.")
    return built.parsed(media_type=media_type, parser=FINGERPRINT, title=title)


def _read(built: Builder, root: Element, name: str) -> str | None:
    """Adds what the root holds and returns its title."""
    if name in ("rss", "feed", "RDF") and (title := xml_feed.add(built, root)) is not None:
        return title
    if name == "svg":
        return _read_drawing(built, root)
    if xml_office.add(built, root):
        return None
    if xml_document.is_document(root):
        return xml_document.add(built, root)
    xml_data.add(built, root)
    return None


def _read_drawing(built: Builder, root: Element) -> str | None:
    """Its title and description, and each text as a line of its own."""
    title = words(child(root, "title"))
    lines = [words(each) for each in root.iter("{*}title", "{*}desc", "{*}text", "{*}flowRoot")]
    lines += [words(each) for each in root.iter("{http://www.w3.org/1999/xhtml}p")]
    built.paragraph("\n".join(lines))
    return title or None
