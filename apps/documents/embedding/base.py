"""The seam between ragsite and whatever turns text into vectors.

A backend is any object with the shape of `Embedder`; the worker, the query path and the chunker know
nothing else about it. Vectors are float32 with unit L2 norm, so cosine similarity is an inner product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = npt.NDArray[np.float32]


class EmbeddingError(Exception):
    """Texts could not be embedded.

    `code` is a stable snake_case word for metrics and API problems; `retryable` says whether the same call
    may succeed later. The message never contains the texts, a response body or an API key.
    """

    def __init__(self, code: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments break the default pickling, and errors cross process boundaries.
        return _rebuild_error, (self.code, str(self), self.retryable)


def _rebuild_error(code: str, message: str, retryable: bool) -> EmbeddingError:
    return EmbeddingError(code, message, retryable=retryable)


class Embedder(Protocol):
    """One embedding model. Implementations are safe to share between threads, not across a fork."""

    @property
    def model(self) -> str:
        """Name of the model, part of the embedding space's identity."""

    @property
    def revision(self) -> str:
        """What distinguishes two sets of weights with the same name."""

    @property
    def dimensions(self) -> int:
        """Length of one vector."""

    @property
    def max_tokens(self) -> int:
        """Content tokens (without special ones) that influence the vector; more are cut off."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return float32 [len(texts), dimensions], unit L2 norm, in input order.

        Raises EmbeddingError.
        """

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the content tokens of each text: without special tokens, not truncated.

        Raises EmbeddingError.
        """

    def known(self, text: str) -> float:
        """Return which part of a text's letters the model has tokens for, 0 to 1; 1 where that cannot be told.

        Of a text in a script that it has never seen a vector says nothing.
        """


def token_batches(lengths: Sequence[int], budget: int, *, max_items: int | None = None) -> Iterator[list[int]]:
    """Yield lists of indices into `lengths`, similar lengths together, longest first.

    A batch costs its padded size, items x longest, in tokens; every batch costs at most `budget`, except
    that an item longer than the budget travels alone. `max_items` also bounds the number of items. Each
    index is yielded exactly once and equal lengths keep their order, so the result is deterministic.
    Longest first, because an allocator that has seen its largest batch does not grow again.

    Raises ValueError for a budget or max_items below 1.
    """
    if budget < 1 or (max_items is not None and max_items < 1):
        raise ValueError("token_batches needs a budget and max_items of at least 1")
    batch: list[int] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and len(batch) >= room:
            yield batch
            batch = []
        if not batch:
            # The first item is the longest of its batch, so it alone decides how many fit.
            room = max(1, budget // max(1, lengths[index]))
            room = room if max_items is None else min(room, max_items)
        batch.append(index)
    if batch:
        yield batch


def require_utf8(texts: Sequence[str]) -> None:
    """Raise EmbeddingError `invalid_text` for a lone surrogate, which JSON can carry and UTF-8 cannot."""
    for position, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise EmbeddingError(
                "invalid_text", f"Text {position} is not valid Unicode (lone surrogate).", retryable=False
            ) from None


def known_part(tokenizer: Tokenizer, text: str) -> float:
    """`Embedder.known` of a model with this tokenizer. One that knows all bytes has no unknown token."""
    unknown = {tokenizer.token_to_id(name) for name in ("[UNK]", "<unk>")}
    found = tokenizer.encode(text.encode(errors="replace").decode(), add_special_tokens=False)
    lengths = [end - start for start, end in found.offsets]
    strange = sum(length for number, length in zip(found.ids, lengths, strict=True) if number in unknown)
    return 1 - strange / max(1, sum(lengths))
