"""How much may be asked of a model's server in a minute, by all processes together."""

from __future__ import annotations

from apps.access.sliding import Window

from .base import LLMError


class Allowance:
    """Requests and tokens a minute, a sliding one; 0 for any number. name: the same in all processes."""

    def __init__(self, name: str, *, requests: int, tokens: int) -> None:
        self._requests = Window("requests", name, amount=requests) if requests else None
        self._tokens = Window("tokens", name, amount=tokens) if tokens else None

    def take(self, tokens: int) -> None:
        """For a request with so many tokens, 0 for another try of it. Raises LLMError `limited`; without Redis all may
        ask."""
        if (self._requests and not self._requests.take(1)) or (
            tokens and self._tokens and not self._tokens.take(tokens)
        ):
            raise LLMError("limited", "The language model was asked as much as it may be in a minute.")

    def add(self, tokens: int) -> None:
        """So many were written besides."""
        if self._tokens:
            self._tokens.add(tokens)
