"""What a connector gives to the sync."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Protocol

#: What a connector wants to remember of an item until the next scan: small, and JSON (an ETag, a size, links).
State = dict[str, Any]


class Lookup(Protocol):
    """What is known of items, asked for by key; a dict is one."""

    def get(self, key: str, /) -> State | None: ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """An item as it was read. `content` is seekable and closed by the caller; `state` belongs to exactly this content.

    media_type: as the source says ("text/html; charset=utf-8"), empty where it says nothing. filename: the last part
    of its name, for what the type leaves open.
    """

    content: BinaryIO
    state: State
    media_type: str = ""
    filename: str = ""
    title: str = ""
    modified: datetime | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """An item that is there now. `key` is its source URI. `fetch` is None where it is unchanged since `state`."""

    key: str
    state: State
    fetch: Callable[[], Fetched] | None


class SourceError(Exception):
    """A source cannot be used or read.

    code: snake_case and stable: invalid, forbidden_address, not_found, unauthorized, unreachable, too_large, timeout,
    unreadable. detail: one sentence without secrets. pointer: into the settings, where they are at fault.
    """

    def __init__(self, code: str, detail: str, *, pointer: str = "") -> None:
        super().__init__(code, detail)
        self.code, self.detail, self.pointer = code, detail, pointer

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"
