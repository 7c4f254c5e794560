"""What pages and sitemaps say of other pages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from lxml import etree

from apps.documents.parsing.encoding import decode
from apps.documents.parsing.types import ParseError

from .addresses import MAX_URL, Url, parse
from .net import gunzip
from .robots import Directives, directives
from .types import SourceError

HTML_BYTES = 8 * 2**20  # of a page, that are searched for links
MAX_ANCHORS, MAX_CANONICALS = 20_000, 10  # of a page, that are looked at
MAX_LINKS, MAX_LINKS_LENGTH = 5_000, 256 * 1024  # of a page; the length in characters of all
SITEMAP_BYTES = 64 * 2**20  # unpacked; sitemaps.org allows 50 MiB
_ENTRY_ELEMENTS = 20_000  # an entry may name 1,000 images, with some elements each
_CHUNK = 64 * 1024
_META_CHARSET = re.compile(rb"<meta[^>]{0,512}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """An HTML page: its title, its canonical URL where it names one, and its links on the same site, as `Url.target`,
    in their order and each once."""

    title: str
    canonical: Url | None
    links: list[str]
    directives: Directives


def read_page(body: BinaryIO, url: Url, *, charset: str, robot: str) -> Page:
    """Read an HTML page that lies at `url`; leaves `body` at its start. robot: its name in robots meta elements.

    Raises SourceError("unreadable") where only a part could be read: its links would look like all there are.
    """
    data = body.read(HTML_BYTES)
    body.seek(0)
    declared = [charset, *(label.decode() for label in _META_CHARSET.findall(data[:1024]))]
    try:
        text = decode(data, declared=declared)
    except ParseError:
        text = data.decode("utf-8", "replace")
    # Told tag by tag: nothing here needs a tree, and selectolax took 15 s to build one of 50,000 open elements.
    read = _Reader(robot)
    parser = etree.HTMLParser(target=cast(Any, read), encoding="utf-8", remove_comments=True, remove_pis=True)
    encoded = memoryview(text.encode("utf-8", "replace"))
    try:
        for start in range(0, len(encoded), _CHUNK):
            parser.feed(bytes(encoded[start : start + _CHUNK]))
        parser.close()
    except etree.LxmlError:
        if read.tags:  # otherwise it is empty
            raise SourceError("unreadable", "The page is not HTML that can be read to its end.") from None
    base = (_url(read.base, url) if read.base else None) or url
    named = (_url(href, base) for href in read.canonicals)
    said = directives(read.robots)
    return Page(
        " ".join("".join(read.title).split())[:500],
        next((each for each in named if each is not None and each.site == url.site), None),
        _links(read.links, base, url.site) if said.follow else [],
        said,
    )


class _Reader:
    """Told the tags of a page by lxml, keeps the few that matter here."""

    def __init__(self, robot: str) -> None:
        self.tags = 0
        self.base = ""
        self.canonicals: list[str] = []
        self.links: list[str] = []
        self.robots: list[str] = []
        self.title: list[str] = []
        self._robot, self._in_title, self._titled = robot, False, False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.tags += 1
        href = (attributes.get("href") or "").strip()
        relations = (attributes.get("rel") or "").lower().split()
        if tag in ("a", "area"):
            if "href" in attributes and "nofollow" not in relations and len(self.links) < MAX_ANCHORS:
                self.links.append(href[: MAX_URL + 1])
        elif tag == "base":
            self.base = self.base or href
        elif tag == "link":
            if href and "canonical" in relations and len(self.canonicals) < MAX_CANONICALS:
                self.canonicals.append(href)
        elif tag == "meta":
            if (attributes.get("name") or "").strip().lower() in ("robots", self._robot):
                self.robots.append(attributes.get("content") or "")
        elif tag == "title":
            self._in_title, self._titled = not self._titled, True

    def end(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False

    def data(self, text: str) -> None:
        if self._in_title and len(self.title) < 100:
            self.title.append(text)

    def close(self) -> None:
        pass


def _links(hrefs: Sequence[str], base: Url, site: str) -> list[str]:
    found: dict[str, None] = {}
    length = 0
    for href in dict.fromkeys(hrefs):
        url = _url(href, base)
        if url is None or url.site != site or url.target in found:
            continue
        length += len(url.target)
        if len(found) == MAX_LINKS or length > MAX_LINKS_LENGTH:
            break
        found[url.target] = None
    return list(found)


def _url(text: str, base: Url) -> Url | None:
    try:
        return parse(text, base=str(base))
    except SourceError:
        return None


@dataclass(frozen=True, slots=True)
class Entry:
    """A URL in a sitemap: of a page, or of another sitemap."""

    url: Url
    is_sitemap: bool


def read_sitemap(body: BinaryIO) -> Iterator[Entry]:
    """The entries of a sitemap or sitemap index, packed with gzip or not, as they are read.

    URLs that are none are left out. Raises SourceError: unreadable, where it is no sitemap or ends early; too_large.
    """
    depth = held = 0
    try:
        for event, element in etree.iterparse(
            _Bytes(body), events=("start", "end"), resolve_entities=False, no_network=True, load_dtd=False
        ):
            name = etree.QName(element).localname
            if event == "start":
                if not depth and name not in ("urlset", "sitemapindex"):
                    raise SourceError("unreadable", "The sitemap has neither urlset nor sitemapindex.")
                depth, held = depth + 1, held + 1
                if held > _ENTRY_ELEMENTS:
                    raise SourceError("too_large", "The sitemap has an entry that is too large.")
                continue
            depth -= 1
            if depth == 1:
                if name in ("url", "sitemap"):
                    for place in element.iterchildren("{*}loc"):
                        if url := _absolute(place.text or ""):
                            yield Entry(url, name == "sitemap")
                held = 0
                element.clear()
                while element.getprevious() is not None:
                    del element.getparent()[0]
    except etree.XMLSyntaxError:
        raise SourceError("unreadable", "The sitemap is not well-formed XML.") from None


def _absolute(text: str) -> Url | None:
    try:
        return parse(text)
    except SourceError:
        return None


class _Bytes:
    """A sitemap's bytes, unpacked, with a limit."""

    def __init__(self, body: BinaryIO) -> None:
        packed = body.read(2) == b"\x1f\x8b"
        body.seek(0)
        chunks = iter(lambda: body.read(_CHUNK), b"")
        self._chunks = gunzip(chunks) if packed else chunks
        self._left = SITEMAP_BYTES

    def read(self, _size: int = -1) -> bytes:
        chunk = next(self._chunks, b"")
        self._left -= len(chunk)
        if self._left < 0:
            raise SourceError("too_large", f"The sitemap is larger than {SITEMAP_BYTES} bytes.")
        return chunk
