"""The seam between ragsite and whatever judges how well a text fits a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class RerankError(Exception):
    """The texts were not judged.

    `code` is a stable snake_case word for metrics and responses: timeout, unreachable, rate_limited, server_error,
    unauthorized, rejected, bad_response, unavailable. The message never holds a query, a text, a response body or an
    API key.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Reranker(Protocol):
    """One way of judging. Safe to share between threads."""

    @property
    def backend(self) -> str:
        """Which kind: http, sentence_transformers or fake."""

    @property
    def model(self) -> str:
        """The model's name; empty where the server alone knows it."""

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """How well each text fits the query, in the order of the texts: finite, higher is better, on a scale of the
        model's own. Raises RerankError.
        """
