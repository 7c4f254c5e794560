"""Queries that are asked at the same time go to the embedding model together.

The first one goes at once. Those that come while the model is busy go together in its next call, up to 16 of them: no
timer holds anybody back, so that a query on an idle machine waits for nothing, and the time to collect is the time for
which there is something to wait anyway.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock

import numpy as np
import numpy.typing as npt

from apps.documents.embedding import EmbeddingError

from .types import Vector

MOST = 16


@dataclass(slots=True, eq=False)
class _Asked:
    """A query that waits. `turn` is set when it has its answer, or when it is its thread's turn to call the model for
    all of `together`, of which it is the first."""

    text: str
    turn: Event = field(default_factory=Event)
    together: list[_Asked] | None = None
    vector: Vector | None = None
    error: Exception | None = None


class Batcher:
    """Shares the calls of one model between threads. `calls`: how many may run at once."""

    def __init__(self, embed: Callable[[Sequence[str]], npt.NDArray[np.float32]], *, calls: int = 1) -> None:
        self._embed = embed
        self._free = calls
        self._lock = Lock()
        self._waiting: deque[_Asked] = deque()

    def vector(self, text: str) -> Vector:
        """float32 [dimensions], unit L2 norm. Raises EmbeddingError."""
        mine = _Asked(text)
        with self._lock:
            if self._free:
                self._free -= 1
                mine.together = [mine]
            else:
                self._waiting.append(mine)
        if mine.together is None:
            mine.turn.wait()
        if mine.together is not None:
            self._call(mine.together)
        if mine.error is not None:
            raise mine.error
        assert mine.vector is not None
        return mine.vector

    def _call(self, together: list[_Asked]) -> None:
        """One call for all of them, then the turn of the first one that came meanwhile."""
        try:
            self._answer(together)
        finally:
            with self._lock:
                following = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
                if following:
                    following[0].together = following
                else:
                    self._free += 1
            for each in (*together[1:], *following[:1]):
                each.turn.set()

    def _answer(self, together: list[_Asked]) -> None:
        try:
            vectors = self._embed([each.text for each in together])
        except EmbeddingError as error:
            if len(together) > 1 and not error.retryable:  # one text may be at fault, and the others are not
                for each in together:
                    self._answer([each])
                return
            for each in together:
                each.error = error
        except Exception as error:
            for each in together:
                each.error = error
        else:
            for each, vector in zip(together, vectors, strict=True):
                each.vector = vector
