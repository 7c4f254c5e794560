"""EPUB 2 and 3: the chapters of the spine, each read as the HTML page that it is.

The readers of EPUB on PyPI only unpack the container, which `zipped` does under limits.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from lxml import etree

from apps.documents.parsing.archives.zipped import open_zip, read_member
from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.encoding import decode
from apps.documents.parsing.markup import html
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "epub/1"

_OCF = "{urn:oasis:names:tc:opendocument:xmlns:container}"
_OPF = "{http://www.idpf.org/2007/opf}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_NCX = "{http://www.daisy.org/z3986/2005/ncx/}"
_XHTML = "{http://www.w3.org/1999/xhtml}"
_OPS = "{http://www.idpf.org/2007/ops}"
_ENC = "{http://www.w3.org/2001/04/xmlenc#}"
#: EPUB OCF 3.3, 4.4, and Adobe's older way: they hide fonts from copying and nothing else.
_FONTS_ONLY = frozenset({"http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"})
_PAGES = frozenset({"application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document"})
# XML may close any element at once, in HTML `<title/>` opens one that swallows the rest of the page.
_CLOSED = re.compile(
    rb"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr)\b)([A-Za-z][\w:.-]*+)([^<>]*+)(?<=/)>"
)
# Marks of notes and of the printed book's pages stand in the middle of sentences: EPUB Structural Semantics 1.1.
_MARK = re.compile(
    rb"<(a|span)\b[^<>]{0,500}?\b(?:epub:type|role)\s*=\s*[\"'](?:doc-)?(?:noteref|pagebreak)[\"'][^<>]{0,500}>"
    rb"(?:<su[pb]\b[^<>]{0,200}>)?[^<>]{0,20}(?:</su[pb]>)?</\1>"
)
_LONGEST_FALLBACK = 8


@dataclass(slots=True)
class _Item:
    """One file of the publication's manifest."""

    path: str
    media_type: str
    properties: list[str]
    fallback: str


@dataclass(slots=True)
class _Package:
    """What the OPF says, paths from the container's root."""

    title: str = ""
    items: dict[str, _Item] = field(default_factory=dict)
    spine: list[str] = field(default_factory=list)
    ncx: str = ""


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """The chapters in reading order without the navigation document; a chapter without a heading gets its entry there.

    What is missing or damaged becomes a note. Raises ParseError: "corrupt", "encrypted" where it is protected.
    """
    with open_zip(data) as archive:
        names = set(archive.namelist())
        _refuse_protected(archive, names)
        path = _package_path(archive, names)
        package = _package(_xml(read_member(archive, path)), path)
        titles = _titles(archive, package)
        built = Builder()
        done: set[str] = set()
        for item in filter(None, map(package.items.get, package.spine)):
            page = _readable(package, item)
            if page is None:
                built.note("A part of the book that is no page of text was left out.")
            elif page.path not in done and "nav" not in page.properties:
                done.add(page.path)
                _chapter(built, archive, page.path, titles.get(page.path))
    return built.parsed(media_type=media_type, parser=FINGERPRINT, title=package.title)


def _refuse_protected(archive: zipfile.ZipFile, names: set[str]) -> None:
    if "META-INF/encryption.xml" not in names:
        return
    for method in _xml(read_member(archive, "META-INF/encryption.xml")).iter(f"{_ENC}EncryptionMethod"):
        parent = method.getparent()  # the key's own method says how the key is hidden
        if parent is not None and parent.tag == f"{_ENC}EncryptedData" and method.get("Algorithm") not in _FONTS_ONLY:
            raise ParseError("encrypted", "The book is protected (DRM) and cannot be read.")


def _xml(data: bytes) -> etree._Element:
    """The root of a file, however careless its XML."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, recover=True)
    root = etree.fromstring(data.strip(), parser)
    if root is None:
        raise ParseError("corrupt", "A file that the book needs is damaged.")
    return root


def _package_path(archive: zipfile.ZipFile, names: set[str]) -> str:
    if "META-INF/container.xml" in names:
        for rootfile in _xml(read_member(archive, "META-INF/container.xml")).iter(f"{_OCF}rootfile", "rootfile"):
            path = _resolved("", rootfile.get("full-path", ""))
            if path in names:
                return path
    found = min((name for name in names if name.lower().endswith(".opf")), default=None)
    if found is None:
        raise ParseError("corrupt", "The EPUB container has no package document.")
    return found


def _resolved(base: str, href: str) -> str:
    """The member that `href` in the file `base` points to."""
    try:
        path = unquote(urlsplit(href).path)
    except ValueError:
        path = ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(base), path)).lstrip("/")


def _package(root: etree._Element, path: str) -> _Package:
    package = _Package()
    titles = (_words(each) for each in root.iter(f"{_DC}title"))
    package.title = next(filter(None, titles), "")
    for each in root.iter(f"{_OPF}item", "item"):
        package.items[each.get("id", "")] = _Item(
            _resolved(path, each.get("href", "")),
            each.get("media-type", "").strip().lower(),
            each.get("properties", "").split(),
            each.get("fallback", ""),
        )
    for spine in root.iter(f"{_OPF}spine", "spine"):
        package.ncx = spine.get("toc", "")
        package.spine += [each.get("idref", "") for each in spine.iter(f"{_OPF}itemref", "itemref")]
    return package


def _words(element: etree._Element) -> str:
    return inline("".join(map(str, element.itertext(etree.Element))))  # of elements: not the names of entities


def _readable(package: _Package, item: _Item) -> _Item | None:
    """The item, or what stands in for it where it is no page: EPUB 3.3, 3.5.1."""
    found: _Item | None = item
    for _ in range(_LONGEST_FALLBACK):
        if found is None or found.media_type in _PAGES or found.path.lower().endswith((".xhtml", ".html", ".htm")):
            return found
        found = package.items.get(found.fallback)
    return None


def _titles(archive: zipfile.ZipFile, package: _Package) -> dict[str, tuple[str, int]]:
    """(title, level) of each file, as the table of contents calls it first."""
    items = package.items.values()
    nav = next((item for item in items if "nav" in item.properties), None)
    ncx = package.items.get(package.ncx) or next((item for item in items if item.path.endswith(".ncx")), None)
    titles: dict[str, tuple[str, int]] = {}
    for item, entries in ((nav, _nav_entries), (ncx, _ncx_entries)):
        if item is None:
            continue
        try:
            root = _xml(read_member(archive, item.path))
        except (KeyError, ParseError):
            continue
        for label, href, level in entries(root):
            if label and href:
                titles.setdefault(_resolved(item.path, href), (label, level))
    return titles


def _nav_entries(root: etree._Element) -> list[tuple[str, str, int]]:
    entries = []
    for nav in root.iter(f"{_XHTML}nav"):
        if "toc" in nav.get(f"{_OPS}type", "").split():
            for link in nav.iter(f"{_XHTML}a"):
                level = sum(1 for _ in link.iterancestors(f"{_XHTML}ol"))
                entries.append((_words(link), link.get("href", ""), level))
    return entries


def _ncx_entries(root: etree._Element) -> list[tuple[str, str, int]]:
    entries = []
    for point in root.iter(f"{_NCX}navPoint"):
        content = point.find(f"{_NCX}content")
        label = inline(point.findtext(f"{_NCX}navLabel/{_NCX}text") or "")
        level = 1 + sum(1 for _ in point.iterancestors(f"{_NCX}navPoint"))
        entries.append((label, "" if content is None else content.get("src", ""), level))
    return entries


def _chapter(built: Builder, archive: zipfile.ZipFile, path: str, title: tuple[str, int] | None) -> None:
    try:
        source = read_member(archive, path)
        part = html.parse(_as_html(source), media_type="application/xhtml+xml", charset=None)
    except KeyError:
        built.note(f"A chapter is missing from the book: {inline(posixpath.basename(path))[-80:]}.")
    except ParseError as error:
        if error.code != "empty":
            built.note(f"The chapter {inline(posixpath.basename(path))[-80:]} was left out: {error.detail}")
    else:
        if not part.text or part.text.isspace():
            return
        if title and not any(block.kind == "heading" for block in part.blocks):
            built.heading(*title)
        built.graft(part)


def _as_html(source: bytes) -> bytes:
    """XHTML that an HTML parser reads as it is meant, without the marks of notes and pages."""
    if b"\x00" in source[:64]:  # UTF-16
        source = decode(source).encode()
    source = _CLOSED.sub(lambda found: b"<%b%b></%b>" % (found[1], found[2].rstrip(b"/"), found[1]), source)
    # To look for a word is far quicker than to look at every tag.
    return _MARK.sub(b"", source) if b"noteref" in source or b"pagebreak" in source else source
