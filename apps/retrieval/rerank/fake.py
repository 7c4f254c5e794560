"""Judging without a model, for tests and demos: how many of the query's words a text has."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


class FakeReranker:
    """Implements `Reranker`; the same texts get the same scores everywhere."""

    backend = "fake"
    model = "fake-overlap"

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """The share of the query's different words that stand in each text, 0..1."""
        asked = set(_WORD.findall(query.casefold()))
        return [len(asked & set(_WORD.findall(text.casefold()))) / max(1, len(asked)) for text in texts]
