"""From an answer of a web server to an item: its type, its state, its body."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from mimetypes import guess_type
from typing import Any, BinaryIO

import httpx

from apps.documents.parsing.formats import by_media_type

from .addresses import Url
from .net import Response
from .types import Fetched, SourceError, State

_PAGES, _OFFICE = ("PDF", "HTML", "Markdown", "text"), ("RTF", "Word", "PowerPoint", "Excel")
_OPEN = ("OpenDocument text", "OpenDocument slides", "OpenDocument sheet")
_LABELS = frozenset((*_PAGES, *_OFFICE, *_OPEN, "Word 97", "Excel 97", "PowerPoint 97"))
_UNTYPED = ("", "application/octet-stream", "binary/octet-stream")


class Held:
    """A body that is closed at the end of a block, unless it is kept for whoever fetches it."""

    def __init__(self, body: BinaryIO) -> None:
        self.body, self._kept = body, False

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self.body.close()

    def keep(self, **fetched: Any) -> Callable[[], Fetched]:
        """A function that hands it out, once."""
        self._kept = True
        waiting = [Fetched(self.body, **fetched)]

        def fetch() -> Fetched:
            if not waiting:
                raise SourceError("unreadable", "The page has been handed out before; the next scan reads it again.")
            return waiting.pop()

        return fetch


def raiser(error: SourceError) -> Callable[[], Fetched]:
    """The `fetch` of an item that is there and cannot be read."""

    def fetch() -> Fetched:
        raise error

    return fetch


def validators(state: State | None) -> dict[str, str]:
    """The headers that ask whether a page has changed since."""
    names = (("If-None-Match", "etag"), ("If-Modified-Since", "modified"))
    return {header: state[name] for header, name in names if state and name in state}


def new_state(response: Response, key: str, url: Url, digest: str) -> State:
    """What to remember of a page: validators, the hash of its content, and its URL where that is not the key."""
    state: State = {"sha256": digest}
    for name, header in (("etag", "etag"), ("modified", "last-modified")):
        value = response.headers.get(header, "")
        if value and len(value) <= 500 and value.isascii() and value.isprintable():
            state[name] = value
    if str(url) != key:
        state["url"] = str(url)
    return state


def content_hash(body: BinaryIO, media_type: str) -> str:
    """SHA-256, in hexadecimal, of the type and the content; leaves `body` at its start."""
    digest = hashlib.sha256(media_type.encode() + b"\0")
    while chunk := body.read(1 << 16):
        digest.update(chunk)
    body.seek(0)
    return digest.hexdigest()


def _essence(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()


def media_type_of(headers: httpx.Headers, url: Url) -> str:
    """As the server says, or as the path suggests where it says nothing."""
    said = headers.get("content-type", "").strip()
    return said if _essence(said) not in _UNTYPED else guess_type(url.path)[0] or said


def modified_at(headers: httpx.Headers) -> datetime | None:
    """Last-Modified, where it is a date."""
    try:
        found = parsedate_to_datetime(headers.get("last-modified", ""))
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def is_item(headers: httpx.Headers, url: Url) -> bool:
    """Is it of a type that is read from web sites: a page, PDF, plain text, Markdown or an office document?"""
    return _label(media_type_of(headers, url)) in _LABELS


def is_html(media_type: str) -> bool:
    """Is it a page with links?"""
    return _label(media_type) == "HTML"


def _label(media_type: str) -> str:
    form = by_media_type(_essence(media_type))
    return form.label if form else ""
