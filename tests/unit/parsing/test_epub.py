"""EPUB: the spine's chapters in order, each an HTML page."""

from __future__ import annotations

import io
import zipfile

from apps.documents.parsing import Parsed, parse
from tests.support.parsed import code_of, shown

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
    '<rootfile full-path="EPUB/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
XHTML = (
    '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"'
    ' xmlns:epub="http://www.idpf.org/2007/ops">'
)


def page(body: str, head: str = "<title/>") -> str:
    return f"{XHTML}<head>{head}</head><body>{body}</body></html>"


def package(items: dict[str, str], spine: list[str], *, toc: str = "") -> str:
    manifest = "".join(f'<item id="{key}" {attributes}/>' for key, attributes in items.items())
    order = "".join(f'<itemref idref="{key}"/>' for key in spine)
    return (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A Book</dc:title><dc:creator>Ann</dc:creator></metadata>'
        f'<manifest>{manifest}</manifest><spine toc="{toc}">{order}</spine></package>'
    )


def book(chapters: dict[str, str | bytes], *, opf: str | None = None, more: dict[str, str] | None = None) -> bytes:
    """A book whose chapters are files in EPUB/, in their order."""
    items = {f"c{n}": f'href="{name}" media-type="application/xhtml+xml"' for n, name in enumerate(chapters)}
    files: dict[str, str | bytes] = {
        "META-INF/container.xml": CONTAINER,
        "EPUB/book.opf": opf or package(items, list(items)),
        **{f"EPUB/{name}": content for name, content in chapters.items()},
        **(more or {}),
    }
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def read(data: bytes) -> Parsed:
    return parse(data, filename="a.epub")


def test_chapters_are_read_in_the_order_of_the_spine() -> None:
    items = {
        "two": 'href="text/2%20b.xhtml" media-type="application/xhtml+xml"',
        "one": 'href="1.xhtml" media-type="application/xhtml+xml"',
        "css": 'href="a.css" media-type="text/css"',
    }
    chapters: dict[str, str | bytes] = {
        "text/2 b.xhtml": page("<h1>Second</h1><p>More.</p>"),
        "1.xhtml": page("<h1>First</h1><ul><li>x</li></ul>"),
    }
    parsed = read(book(chapters, opf=package(items, ["one", "two"])))
    assert shown(parsed) == [("heading", "First"), ("list", "- x"), ("heading", "Second"), ("paragraph", "More.")]
    assert (parsed.title, parsed.parser, parsed.media_type) == ("A Book", "epub/1", "application/epub+zip")


def test_elements_that_xml_closes_at_once_swallow_nothing() -> None:
    body = (
        '<script src="a.js"/><h2 id="x"/><p>One<a id="p1"/> two<br/>three.</p>'
        '<div hidden="hidden"/><textarea/><p>End.</p>'
    )
    assert shown(read(book({"a.xhtml": page(body)}))) == [("paragraph", "One two\nthree."), ("paragraph", "End.")]


def test_marks_of_notes_and_printed_pages_are_no_part_of_the_sentence() -> None:
    body = (
        '<p>It was<a epub:type="noteref" href="#n"><sup>1</sup></a> a <span epub:type="pagebreak" id="p7">7</span>dark '
        '<span role="doc-pagebreak" id="p8"/>night.</p><aside epub:type="footnote" id="n"><p>Very dark.</p></aside>'
    )
    assert [text for _, text in shown(read(book({"a.xhtml": page(body)})))] == ["It was a dark night.", "Very dark."]


def test_a_chapter_without_a_heading_is_called_as_in_the_table_of_contents() -> None:
    nav = page(
        '<nav epub:type="toc"><ol><li><a href="a.xhtml">Opening</a><ol><li><a href="b.xhtml#s">Inner <i>part</i></a>'
        '</li></ol></li><li><a href="c.xhtml">Other name</a></li></ol></nav>'
    )
    items = {
        "nav": 'href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"',
        **{key: f'href="{key}.xhtml" media-type="application/xhtml+xml"' for key in "abc"},
    }
    chapters: dict[str, str | bytes] = {
        "nav.xhtml": nav,
        "a.xhtml": page("<p>One.</p>"),
        "b.xhtml": page("<p>Two.</p>"),
        "c.xhtml": page("<h1>Own</h1><p>Three.</p>"),
    }
    parsed = read(book(chapters, opf=package(items, ["nav", "a", "b", "c"])))
    assert [(block.level, text) for block, (_, text) in zip(parsed.blocks, shown(parsed), strict=True)] == [
        (1, "Opening"),
        (0, "One."),
        (2, "Inner part"),
        (0, "Two."),
        (1, "Own"),
        (0, "Three."),
    ]


def test_an_older_book_has_its_table_of_contents_in_ncx() -> None:
    ncx = (
        '<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>Opening</text></navLabel>'
        '<content src="a.html#start"/></navPoint></navMap></ncx>'
    )
    items = {"a": 'href="a.html" media-type="application/xhtml+xml"', "n": 'href="t.ncx" media-type="x"'}
    data = book({"a.html": page("<p>One.</p>"), "t.ncx": ncx}, opf=package(items, ["a"], toc="n"))
    assert shown(read(data)) == [("heading", "Opening"), ("paragraph", "One.")]


def test_a_missing_chapter_is_noted() -> None:
    items = {key: f'href="{key}.xhtml" media-type="application/xhtml+xml"' for key in "ab"}
    parsed = read(book({"a.xhtml": page("<p>Here.</p>")}, opf=package(items, ["a", "b", "a"])))
    assert shown(parsed) == [("paragraph", "Here.")]
    assert parsed.notes == ["A chapter is missing from the book: b.xhtml."]


def test_a_page_that_is_a_picture_is_noted_or_replaced() -> None:
    items = {
        "s": 'href="s.svg" media-type="image/svg+xml"',
        "p": 'href="p.pdf" media-type="application/pdf" fallback="a"',
        "a": 'href="a.xhtml" media-type="application/xhtml+xml"',
    }
    parsed = read(book({"s.svg": "<svg/>", "a.xhtml": page("<p>Words.</p>")}, opf=package(items, ["s", "p"])))
    assert shown(parsed) == [("paragraph", "Words.")]
    assert parsed.notes == ["A part of the book that is no page of text was left out."]


def encryption(algorithm: str) -> dict[str, str]:
    return {
        "META-INF/encryption.xml": '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" '
        'xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:EncryptedData><e:EncryptionMethod '
        f'Algorithm="{algorithm}"/><e:CipherData><e:CipherReference URI="EPUB/a.xhtml"/></e:CipherData>'
        "</e:EncryptedData></encryption>"
    }


def test_a_protected_book_is_refused() -> None:
    data = book({"a.xhtml": page("<p>x</p>")}, more=encryption("http://www.w3.org/2001/04/xmlenc#aes256-cbc"))
    assert code_of(data, filename="a.epub") == "encrypted"


def test_hidden_fonts_are_no_protection() -> None:
    data = book({"a.xhtml": page("<p>x</p>")}, more=encryption("http://www.idpf.org/2008/embedding"))
    assert read(data).text == "x"


def test_a_book_without_a_package_is_corrupt() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
    assert code_of(target.getvalue(), filename="a.epub") == "corrupt"
    assert code_of(book({"a.xhtml": page("<p>x</p>")})[:-30], filename="a.epub") == "corrupt"


def test_a_book_of_blank_pages_is_empty() -> None:
    assert code_of(book({"a.xhtml": page("<svg><text>x</text></svg>")}), filename="a.epub") == "empty"


def test_no_entity_is_fetched_or_expanded() -> None:
    evil = '<!DOCTYPE package [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    opf = package({"a": 'href="a.xhtml" media-type="application/xhtml+xml"'}, ["a"]).replace("A Book", "&x;")
    parsed = read(book({"a.xhtml": page("<p>x</p>")}, opf=evil + opf))
    assert (parsed.text, parsed.title) == ("x", None)


def test_scripts_and_encodings_of_chapters_are_kept() -> None:
    wide = page("<p>مرحبا 世界</p>").replace("utf-8", "utf-16").encode("utf-16")
    latin = page("<p>café</p>").replace("utf-8", "iso-8859-1").encode("latin-1")
    assert [text for _, text in shown(read(book({"a.xhtml": wide, "b.xhtml": latin})))] == ["مرحبا 世界", "café"]
