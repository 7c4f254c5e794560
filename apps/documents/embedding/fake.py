"""Deterministic vectors without a model: signed feature hashing of word n-grams.

A real backend for tests, demos and load tests: texts that share words are closer, nothing is learned.
The method is the hashing trick (Weinberger et al., 2009, "Feature Hashing for Large Scale Multitask
Learning", arXiv:0902.2206): each feature is added with sign s(f) at coordinate h(f), which keeps inner
products unbiased.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .base import Vectors, require_utf8

# A word is a run of letters, digits and underscores; scripts without spaces count one word per character.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")

_LOG_VARIABLE, _POISON_VARIABLE = "RAGSITE_FAKE_EMBED_LOG", "RAGSITE_FAKE_EMBED_POISON"
_BLOCK = 1024  # texts per accumulation: float64 scratch of 8 KiB x dimensions
# Powers of two keep sums and squares exact in float64, whatever order a platform adds them in.
_BIGRAM_WEIGHT = 2.0**-1
_TEXT_WEIGHT = 2.0**-10  # the whole text as one feature: no zero vectors, and hardly two texts alike


class FakeEmbedder:
    """Implements `Embedder` in numpy; the same text gives the same bits in every process and platform.

    When the environment variable RAGSITE_FAKE_EMBED_LOG names a file, each embed() appends one JSON line
    {"n": number of texts, "sha256": [hex of each text's UTF-8]}, so that a test can count the texts
    embedded by any number of processes. A text that holds the word in RAGSITE_FAKE_EMBED_POISON kills the
    process, as running out of memory would.
    """

    def __init__(self, *, model: str = "fake-hash", dimensions: int = 384, max_tokens: int = 254) -> None:
        """Raises ValueError for fewer than 8 dimensions, where everything collides."""
        if dimensions < 8:
            raise ValueError(f"The fake embedder needs at least 8 dimensions, not {dimensions}")
        self.model = model
        self.revision = "hash-1"
        self.dimensions = dimensions
        self.max_tokens = max_tokens

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return float32 [len(texts), dimensions], unit L2 norm; words past max_tokens are ignored."""
        require_utf8(texts)
        _log_call(texts)
        _die_of_poison(texts)
        out = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for start in range(0, len(texts), _BLOCK):
            block = texts[start : start + _BLOCK]
            out[start : start + len(block)] = self._embed_block(block)
        return out

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of words and punctuation marks of each text."""
        return [len(_TOKEN.findall(text)) for text in texts]

    def known(self, text: str) -> float:
        """Return 1: every word has its features."""
        return 1.0

    def _embed_block(self, texts: Sequence[str]) -> Vectors:
        hashes: list[int] = []
        lengths = np.empty(len(texts), dtype=np.int64)
        for row, text in enumerate(texts):
            words = _WORD.findall(text.lower())[: self.max_tokens]
            lengths[row] = len(words)
            hashes.extend(map(_word_hash, words))
        rows = np.repeat(np.arange(len(texts)), lengths)
        unigrams = _mix(np.array(hashes, dtype=np.uint64))
        same_text = rows[1:] == rows[:-1]
        bigrams = _mix(unigrams[:-1] * np.uint64(3) + unigrams[1:])[same_text]
        whole = _mix(np.array([zlib.crc32(text.encode()) for text in texts], dtype=np.uint64) + np.uint64(1 << 40))

        # A repeated feature counts once, or "the" would make all English alike.
        one_rows, one = _distinct(rows, unigrams)
        two_rows, two = _distinct(rows[1:][same_text], bigrams)
        features = np.concatenate([one, two, whole])
        feature_rows = np.concatenate([one_rows, two_rows, np.arange(len(texts))])
        weights = np.repeat([1.0, _BIGRAM_WEIGHT, _TEXT_WEIGHT], [len(one), len(two), len(whole)])
        signs = np.where(features >> np.uint64(63), weights, -weights)
        columns = (features % np.uint64(self.dimensions)).astype(np.int64)
        sums = np.bincount(
            feature_rows * self.dimensions + columns, weights=signs, minlength=len(texts) * self.dimensions
        ).reshape(len(texts), self.dimensions)
        norms = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        return (sums / norms[:, None]).astype(np.float32)


@lru_cache(maxsize=2**16)
def _word_hash(word: str) -> int:
    return zlib.crc32(word.encode())


def _mix(values: np.ndarray) -> np.ndarray:
    """Scatter uint64 values over all 64 bits (finaliser of splitmix64, Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _distinct(rows: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop repeated (row, feature) pairs; both arrays [n], result sorted by row."""
    if not len(rows):
        return rows, features
    order = np.lexsort((features, rows))
    rows, features = rows[order], features[order]
    keep = np.ones(len(rows), dtype=bool)
    keep[1:] = (rows[1:] != rows[:-1]) | (features[1:] != features[:-1])
    return rows[keep], features[keep]


def _die_of_poison(texts: Sequence[str]) -> None:
    poison = os.environ.get(_POISON_VARIABLE)
    if poison and any(poison in text for text in texts):
        os.kill(os.getpid(), signal.SIGKILL)


def _log_call(texts: Sequence[str]) -> None:
    path = os.environ.get(_LOG_VARIABLE)
    if not path:
        return
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    line = json.dumps({"n": len(texts), "sha256": digests}) + "\n"
    # One write() on an O_APPEND descriptor: lines of racing processes never interleave.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
