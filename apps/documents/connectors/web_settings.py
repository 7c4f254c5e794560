"""What a user may ask of a web source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .addresses import MAX_URL, Url, parse
from .types import SourceError

MAX_PREFIXES = 100


@dataclass(frozen=True, slots=True)
class WebSettings:
    """url: a page to start from, or a sitemap (.xml, .xml.gz). depth: links from the start page, 0..10; of a sitemap
    its pages only. max_pages: items, 1..50,000. delay_seconds: between two requests, 0..60. include, exclude: prefixes
    of paths; a page has to match one of the first, where there are any, and none of the second."""

    url: Url
    depth: int = 3
    max_pages: int = 1_000
    delay_seconds: float = 0.5
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    user_agent: str = "ragsite/0.1"

    @property
    def is_sitemap(self) -> bool:
        """Does the URL name a sitemap rather than a page?"""
        return self.url.path.lower().endswith((".xml", ".xml.gz"))

    def covers(self, path: str) -> bool:
        """Is a page at this path wanted?"""
        return (not self.include or path.startswith(self.include)) and not path.startswith(self.exclude or ("\0",))

    def as_json(self) -> dict[str, Any]:
        """As the settings of a source."""
        return {
            **asdict(self),
            "url": str(self.url),
            "include": list(self.include),
            "exclude": list(self.exclude),
        }


def validated(settings: Mapping[str, Any]) -> WebSettings:
    """The settings, with defaults. Raises SourceError, with a pointer to the one that is wrong."""
    if not isinstance(settings, Mapping):
        raise SourceError("invalid", "The settings must be an object.", pointer="/settings")
    for name in settings:
        if name not in {field.name for field in fields(WebSettings)}:
            raise _invalid(str(name)[:100], "There is no such setting.")
    url = _url(settings.get("url"))
    return WebSettings(
        url,
        depth=int(_number(settings, "depth", 3, 0, 10, whole=True)),
        max_pages=int(_number(settings, "max_pages", 1_000, 1, 50_000, whole=True)),
        delay_seconds=float(_number(settings, "delay_seconds", 0.5, 0, 60)),
        include=_prefixes(settings, "include", url),
        exclude=_prefixes(settings, "exclude", url),
        user_agent=_user_agent(settings.get("user_agent", "ragsite/0.1")),
    )


def _invalid(name: str, detail: str) -> SourceError:
    return SourceError("invalid", detail, pointer=f"/settings/{name}")


def _url(value: object) -> Url:
    if not isinstance(value, str) or not value.strip():
        raise _invalid("url", "A web source needs the address of a page or a sitemap.")
    try:
        return parse(value)
    except SourceError as error:
        raise SourceError(error.code, error.detail, pointer="/settings/url") from None


def _number(
    settings: Mapping[str, Any], name: str, default: float, low: float, high: float, *, whole: bool = False
) -> float:
    value = settings.get(name, default)
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise _invalid(name, f"This must be {kind} from {low:g} to {high:,g}.".replace(",", ""))
    return value


def _prefixes(settings: Mapping[str, Any], name: str, url: Url) -> tuple[str, ...]:
    values = settings.get(name, [])
    if not isinstance(values, list | tuple) or len(values) > MAX_PREFIXES:
        raise _invalid(name, f"This must be a list of at most {MAX_PREFIXES} beginnings of paths.")
    found: list[str] = []
    for number, value in enumerate(values):
        if not isinstance(value, str) or not value.startswith("/") or len(value) > MAX_URL or set(value) & set("?#*"):
            raise _invalid(f"{name}/{number}", 'This must be the beginning of a path, as in "/docs/".')
        try:
            found.append(parse(url.site + value).path)
        except SourceError as error:
            raise _invalid(f"{name}/{number}", error.detail) from None
    return tuple(dict.fromkeys(found))


def _user_agent(value: object) -> str:
    if (
        not isinstance(value, str)
        or not 1 <= len(value.strip()) <= 200
        or not (value.isascii() and value.isprintable())
    ):
        raise _invalid("user_agent", "This must be 1 to 200 printable ASCII characters.")
    return value.strip()
