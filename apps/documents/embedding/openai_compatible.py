"""A served model behind any OpenAI-compatible `/v1/embeddings`: vLLM, Text Embeddings Inference, OpenAI."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .base import EmbeddingError, Vectors, known_part, require_utf8, token_batches

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LETTERS = re.compile(r"[A-Za-z]+")
_OTHER_ASCII = re.compile(r"[!-@\[-`{-~]")


def estimate_tokens(text: str) -> int:
    """Return an estimate of the content tokens that rather errs upwards, for an unknown tokenizer.

    A run of n ASCII letters counts ceil(n / 3), every other printable ASCII character 1, any other
    character its UTF-8 length minus 1 (Latin and Cyrillic 1, CJK 2, emoji 3). Over 1,380 paragraphs of the
    Python manual it is 1.16 to 1.86 times the WordPiece count (5th to 95th percentile, at least 0.94), so a
    text chunked by it wastes a third of the window and hardly ever overflows it.
    """
    letters = sum((len(run) + 2) // 3 for run in _LETTERS.findall(text))
    return letters + len(_OTHER_ASCII.findall(text)) + len(text.encode(errors="replace")) - len(text)


class OpenAICompatibleEmbedder:
    """Implements `Embedder` over HTTP with the official client, which retries with jittered backoff."""

    def __init__(
        self,
        *,
        url: str,
        model: str,
        dimensions: int,
        api_key: str = "",
        revision: str = "served",
        max_tokens: int = 254,
        tokenizer_file: Path | None = None,
        encoding_format: Literal["base64", "float"] = "base64",
        request_dimensions: bool = False,
        max_texts: int = 32,
        budget: int = 16_384,
        concurrency: int = 4,
        timeout: float = 30.0,
        max_retries: int = 3,
    ) -> None:
        """Prepare a client; nothing is sent yet.

        `url` ends before `/embeddings`, usually in `/v1`. `tokenizer_file` is the model's tokenizer.json:
        with it counts are exact and long texts are cut at max_tokens, without it counts are estimates and
        the server decides. `request_dimensions` sends `dimensions` (Matryoshka models; vLLM refuses it for
        others). A request holds at most `max_texts` (the default is what Text Embeddings Inference accepts)
        and `budget` padded tokens; `concurrency` requests run at once. `timeout` is in seconds per attempt;
        408, 409, 429, 5xx, timeouts and lost connections are tried `max_retries` more times.

        Raises EmbeddingError `tokenizer_missing`.
        """
        # Imported here: the client takes a second to import.
        import openai

        self.model = model
        self.revision = revision
        self.dimensions = dimensions
        self.max_tokens = max_tokens
        self._encoding_format = encoding_format
        self._extra: dict[str, Any] = {"dimensions": dimensions} if request_dimensions else {}
        self._max_texts = max_texts
        self._budget = budget
        self._concurrency = concurrency
        self._tokenizer = _load_tokenizer(tokenizer_file) if tokenizer_file else None
        # A server without authentication ignores the key, but the client insists on one.
        self._client = openai.OpenAI(base_url=url, api_key=api_key or "none", timeout=timeout, max_retries=max_retries)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return float32 [len(texts), dimensions], unit L2 norm, in input order.

        Raises EmbeddingError; retryable: `timeout`, `unreachable`, `rate_limited`, `server_error`,
        `bad_response`; final: `unauthorized`, `rejected`, `wrong_dimensions`, `not_finite`, `zero_vector`,
        `invalid_text`.
        """
        require_utf8(texts)
        out = np.empty((len(texts), self.dimensions), dtype=np.float32)
        texts, lengths = self._cut(texts)
        batches = list(token_batches(lengths, self._budget, max_items=self._max_texts))
        requests = [[texts[index] for index in batch] for batch in batches]
        if len(requests) <= 1:
            results = [self._request(request) for request in requests]
        else:
            with ThreadPoolExecutor(min(self._concurrency, len(requests))) as pool:
                results = list(pool.map(self._request, requests))
        for batch, vectors in zip(batches, results, strict=True):
            out[batch] = vectors
        return out

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return content tokens: exact with a tokenizer, else `estimate_tokens`."""
        if self._tokenizer is None:
            return [estimate_tokens(text) for text in texts]
        require_utf8(texts)
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding.ids) for encoding in encodings]

    def known(self, text: str) -> float:
        """Return which part of a text's letters the tokenizer has tokens for, 0 to 1; 1 without a tokenizer."""
        return 1.0 if self._tokenizer is None else known_part(self._tokenizer, text)

    def _cut(self, texts: Sequence[str]) -> tuple[Sequence[str], list[int]]:
        """Return texts that fit, as far as that is known, and their lengths in tokens."""
        if self._tokenizer is None:
            return texts, self.count(texts)
        kept, lengths = [], []
        # Not the fast variant: cutting needs the offsets.
        for text, encoding in zip(
            texts, self._tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True
        ):
            length = len(encoding.ids)
            if length > self.max_tokens:
                text, length = text[: encoding.offsets[self.max_tokens - 1][1]], self.max_tokens
            kept.append(text)
            lengths.append(length)
        return kept, lengths

    def _request(self, texts: list[str]) -> Vectors:
        """Embed one batch; messages name the status and never quote the server, which may echo a text."""
        import openai

        try:
            # With an explicit format the client leaves decoding to us: straight into numpy, no lists.
            response = self._client.embeddings.create(
                model=self.model, input=texts, encoding_format=self._encoding_format, **self._extra
            )
            rows = [(item.index, item.embedding) for item in response.data]
        except openai.APITimeoutError:
            raise _error("timeout", "did not answer in time", retryable=True) from None
        except openai.APIConnectionError:
            raise _error("unreachable", "cannot be reached", retryable=True) from None
        except openai.APIStatusError as error:
            raise _status_error(error.status_code) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError):
            raise _error("bad_response", "sent something that is no embedding list", retryable=True) from None
        if sorted(index for index, _ in rows) != list(range(len(texts))):
            raise _error("bad_response", f"sent {len(rows)} vectors for {len(texts)} texts", retryable=True)
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for index, value in rows:
            vectors[index] = self._decode(value)
        return _normalise(vectors)

    def _decode(self, value: Any) -> np.ndarray:
        try:
            if isinstance(value, str):
                vector = np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
            else:
                vector = np.asarray(value, dtype=np.float32)
        except (binascii.Error, ValueError, TypeError):
            raise _error("bad_response", "sent a vector that cannot be decoded", retryable=True) from None
        if vector.shape != (self.dimensions,):
            raise _error(
                "wrong_dimensions",
                f"sent {vector.size} dimensions where EMBEDDING_DIMENSIONS says {self.dimensions}",
                retryable=False,
            )
        return vector


def _normalise(vectors: Vectors) -> Vectors:
    if not np.isfinite(vectors).all():
        raise _error("not_finite", "sent NaN or infinity in a vector", retryable=False)
    # float64: squares of large float32 components overflow.
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not norms.all():
        raise _error("zero_vector", "sent a zero vector, which has no direction", retryable=False)
    return (vectors / norms).astype(np.float32)


def _status_error(status: int) -> EmbeddingError:
    if status == 429:
        return _error("rate_limited", "limits the rate (429)", retryable=True)
    if status >= 500 or status in (408, 409):
        return _error("server_error", f"failed ({status})", retryable=True)
    if status in (401, 403):
        return _error("unauthorized", f"refuses EMBEDDING_API_KEY ({status})", retryable=False)
    return _error("rejected", f"rejects the request ({status})", retryable=False)


def _error(code: str, what: str, *, retryable: bool) -> EmbeddingError:
    return EmbeddingError(code, f"The embedding server {what}.", retryable=retryable)


def _load_tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise EmbeddingError("tokenizer_missing", f"No tokenizer can be read from {path}.", retryable=False) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
