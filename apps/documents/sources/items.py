"""What a source was last seen to hold, as a scan asks for it: which of it is known, which of it is gone."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from apps.access import tenancy

from .. import db
from ..connectors.types import State

PAGE = 1_000


class InOrder:
    """For a connector that lists in the order of keys: a page of what is known is in memory, however many there are.

    `missing` collects the keys that the scan has passed by. A connector that breaks the order is answered rightly, by a
    query for each such key; what is missing is then known after the scan alone.
    """

    def __init__(self, *, tenant_id: UUID, source_id: UUID) -> None:
        self._tenant_id, self._source_id = tenant_id, source_id
        self._page: deque[tuple[str, State]] = deque()
        self._ended = False
        self._read_to = ""  # the last key that was read from the table
        self._at: tuple[str, State | None] = ("", None)
        self.missing: list[str] = []
        self.returned: list[str] = []  # keys that had been passed by and came after all

    def get(self, key: str) -> State | None:
        """What is known of it, as the connector asks."""
        if key == self._at[0]:
            return self._at[1]
        if key < self._at[0]:
            self.returned.append(key)
            found = self._rows("item_states", keys=[key])
            return found[0][1] if found else None
        while self._fill() and self._page[0][0] < key:
            self.missing.append(self._page.popleft()[0])
        there = bool(self._page) and self._page[0][0] == key
        self._at = (key, self._page.popleft()[1] if there else None)
        return self._at[1]

    def see(self, key: str) -> State | None:
        """The scan has found this one; what is known of it."""
        return self.get(key)

    def rest_is_missing(self) -> Iterator[None]:
        """The scan is complete: page by page, all that is known and has not been found goes to `missing`."""
        while self._fill():
            self.missing += [key for key, _ in self._page]
            self._page.clear()
            yield

    def _fill(self) -> bool:
        if not self._page and not self._ended:
            self._page.extend(self._rows("items_after", after=self._read_to, limit=PAGE))
            self._ended = len(self._page) < PAGE
            self._read_to = self._page[-1][0] if self._page else self._read_to
        return bool(self._page)

    def _rows(self, name: str, **parameters: Any) -> list[tuple[str, State]]:
        with tenancy.scope(self._tenant_id):
            return _decoded(db.rows(name, source=self._source_id, **parameters))


class AllAtOnce(dict[str, State]):
    """For a connector that has no order, and few enough items: all that is known, in memory."""

    def __init__(self, *, tenant_id: UUID, source_id: UUID) -> None:
        with tenancy.scope(tenant_id):
            super().__init__(_decoded(db.rows("items_after", source=source_id, after="", limit=2**31)))
        self._unseen = set(self)
        self.missing: list[str] = []
        self.returned: list[str] = []

    def see(self, key: str) -> State | None:
        """The scan has found this one; what is known of it."""
        self._unseen.discard(key)
        return self.get(key)

    def rest_is_missing(self) -> Iterator[None]:
        """The scan is complete: all that is known and has not been found goes to `missing`."""
        self.missing += sorted(self._unseen)
        yield


Known = InOrder | AllAtOnce


def _decoded(rows: list[tuple[Any, ...]]) -> list[tuple[str, State]]:
    return [(key, json.loads(state)) for key, state in rows]
