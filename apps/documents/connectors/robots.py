"""What a site asks of robots: robots.txt (RFC 9309), robots meta elements and X-Robots-Tag headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import httpx
from protego import Protego

from .addresses import Url
from .net import Client, HttpError
from .types import SourceError

MAX_BYTES = 512 * 1024  # RFC 9309, section 2.5: at least 500 KiB; the rest is not read
MAX_DELAY = 60.0  # seconds, whatever Crawl-delay says

_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


def product(user_agent: str) -> str:
    """The name by which robots rules know a user agent: "ragsite" of "ragsite/0.1"."""
    found = re.match(r"[A-Za-z_-]+", user_agent)
    return found.group().lower() if found else "ragsite"


@dataclass(frozen=True, slots=True)
class Rules:
    """A robots.txt, as it concerns one robot. delay: seconds between two requests."""

    _rules: Protego
    _name: str
    delay: float

    def allow(self, url: Url) -> bool:
        """May the robot ask for it?"""
        return self._rules.can_fetch(str(url), self._name)


def read_rules(client: Client, site: str, user_agent: str) -> Rules:
    """The robots.txt of a site. One that is missing allows everything; redirects are followed, also to other sites,
    as RFC 9309 asks (section 2.3.1.2).

    Raises SourceError where it cannot be known: a server error, 429, a timeout, a host that cannot be reached.
    """
    try:
        with client.get(f"{site}/robots.txt").body as body:
            text = body.read(MAX_BYTES).decode("utf-8", "replace")
    except HttpError as error:
        if error.status >= 500 or error.status == 429:
            raise SourceError("unreachable", f"robots.txt cannot be read: {error.detail}") from None
        text = ""
    name = product(user_agent)
    rules = Protego.parse(text.removeprefix("\ufeff"))
    return Rules(rules, name, min(max(rules.crawl_delay(name) or 0.0, 0.0), MAX_DELAY))


@dataclass(frozen=True, slots=True)
class Directives:
    """May a page be an item, and may its links be followed?"""

    index: bool = True
    follow: bool = True

    def __and__(self, other: Directives) -> Directives:
        return Directives(self.index and other.index, self.follow and other.follow)


def directives(values: Iterable[str]) -> Directives:
    """Of the contents of robots meta elements: "noindex, nofollow", "none"."""
    words = {word.strip().lower() for value in values for word in value.split(",")}
    return Directives(not words & {"noindex", "none"}, not words & {"nofollow", "none"})


def header_directives(headers: httpx.Headers, name: str) -> Directives:
    """Of X-Robots-Tag headers, those for other robots ("googlebot: noindex") left out."""
    values = []
    for value in headers.get_list("x-robots-tag"):
        robot, colon, rest = value.partition(":")
        robot = robot.strip().lower()
        if not colon or "," in robot or robot in _VALUED:
            values.append(value)
        elif robot == name:
            values.append(rest)
    return directives(values)
