"""Which items of a source are wanted: its include and exclude patterns.

A pattern is matched against the whole path below the source's folder, letter case counts:

- `*`, `?` and `[a-z]` are those of a shell, within one part of the path;
- `**` as a part of its own is any number of folders, at the end everything within: "reports/**";
- a pattern without "/" is matched against the last part alone: "*.md" is "**/*.md";
- one that ends in "/" is everything within: "drafts/" is "drafts/**".

An item is wanted where it matches one of `include` (all do where that is empty) and none of `exclude`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from typing import Any

from apps.documents.connectors.types import SourceError

MAX_PATTERNS, MAX_LENGTH = 100, 255

#: One part of a pattern; None is `**`.
_Part = re.Pattern[str] | None


def checked(settings: dict[str, Any], name: str) -> list[str]:
    """The patterns under `name` in a user's settings. Raises SourceError("invalid")."""
    patterns = settings.get(name) or []
    if not isinstance(patterns, list) or len(patterns) > MAX_PATTERNS:
        raise SourceError("invalid", f"A list of at most {MAX_PATTERNS} patterns.", pointer=f"/settings/{name}")
    for number, pattern in enumerate(patterns):
        if not isinstance(pattern, str) or not pattern or len(pattern) > MAX_LENGTH:
            detail = f"A pattern is a text of 1 to {MAX_LENGTH} characters."
        elif pattern.startswith("/") or {"", ".", ".."} & set(pattern.rstrip("/").split("/")):
            detail = 'A pattern is relative and without empty, "." or ".." parts: "reports/**/*.md".'
        else:
            continue
        raise SourceError("invalid", detail, pointer=f"/settings/{name}/{number}")
    return patterns


class Patterns:
    """`include` and `exclude`, ready to be asked about paths with "/" between their parts."""

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self._include = [_compile(pattern) for pattern in include]
        self._exclude = [_compile(pattern) for pattern in exclude]
        # "a/**" is held as a, **, *
        self._folders = [parts[:-2] for parts in self._exclude if len(parts) > 2 and parts[-2] is None]

    def wants(self, path: str) -> bool:
        """Is the item at this path wanted?"""
        if not self._include and not self._exclude:
            return True
        parts = path.split("/")
        if self._include and not any(_matches(parts, pattern) for pattern in self._include):
            return False
        return not any(_matches(parts, pattern) for pattern in self._exclude)

    def prunes(self, folder: str) -> bool:
        """Is everything within this folder excluded, so that it need not be looked at?"""
        return bool(self._folders) and any(_matches(folder.split("/"), pattern) for pattern in self._folders)


def _compile(pattern: str) -> list[_Part]:
    parts = pattern.split("/") if "/" in pattern else ["**", pattern]
    if not parts[-1]:
        parts[-1] = "**"
    if parts[-1] == "**":
        parts.append("*")  # `**` at the end is what is within, and not the folder itself
    # fnmatch's expressions do not backtrack, so that a user's pattern cannot keep us busy
    return [
        None if part == "**" else re.compile(translate(part))
        for part, before in zip(parts, ["", *parts[:-1]], strict=True)
        if not part == before == "**"
    ]


def _matches(parts: Sequence[str], pattern: Sequence[_Part]) -> bool:
    """Wildcard matching with one step of memory: only the last `**` is ever tried again, so it is quadratic at most."""
    at = of = 0
    again: tuple[int, int] | None = None
    while at < len(parts):
        if of < len(pattern) and pattern[of] is None:
            of += 1
            again = (at + 1, of)
        elif of < len(pattern) and (part := pattern[of]) and part.match(parts[at]):
            at, of = at + 1, of + 1
        elif again:
            at, of = again
            again = (at + 1, of)
        else:
            return False
    return all(part is None for part in pattern[of:])
