"""What was used last, in this process: bounded by entries, by bytes and by age."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")

SWEEP_SECONDS = 60.0


class Recent(Generic[Value]):
    """A least-recently-used cache for threads. What is too old also leaves memory, at the next `keep` after a minute:
    a text that was erased is not held for long because nobody asks for it.
    """

    def __init__(self, *, entries: int, bytes: int, seconds: float) -> None:
        self._most, self._room, self._seconds = entries, bytes, seconds
        self._kept: OrderedDict[Hashable, tuple[Value, int, float]] = OrderedDict()  # value, bytes, kept at
        self._lock = Lock()
        self._swept = time.monotonic()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Value | None:
        """The value kept under a key, unless it is too old; it is the one used last now."""
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[2] < time.monotonic() - self._seconds:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def keep(self, key: Hashable, value: Value, *, bytes: int) -> None:
        """Keep a value of a size in place of what was kept under its key; not one that is larger than the room."""
        now = time.monotonic()
        with self._lock:
            self._drop(key)
            if now > self._swept + SWEEP_SECONDS:
                self._swept = now
                for old in [each for each, (_, _, kept_at) in self._kept.items() if kept_at < now - self._seconds]:
                    self._drop(old)
            if bytes > self._room:
                return
            self._kept[key] = (value, bytes, now)
            self.bytes += bytes
            while len(self._kept) > self._most or self.bytes > self._room:
                self._drop(next(iter(self._kept)))

    def drop(self, key: Hashable) -> None:
        with self._lock:
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        dropped = self._kept.pop(key, None)
        self.bytes -= dropped[1] if dropped else 0
