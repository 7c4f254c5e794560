"""Batcher: queries asked at the same time share calls of the model."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from apps.documents.embedding import EmbeddingError
from apps.retrieval.batcher import MOST, Batcher
from tests.support.processes import wait_for


class Model:
    """Counts letters; while `busy` is clear its calls wait. `refuses`: a text that it cannot take."""

    def __init__(self, refuses: str = "", *, retryable: bool = False) -> None:
        self.calls: list[list[str]] = []
        self.free = Event()
        self.free.set()
        self.refuses, self.retryable = refuses, retryable

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        assert self.free.wait(10)
        if self.refuses in texts:
            raise EmbeddingError("refused", "no", retryable=self.retryable)
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def ask_while_busy(model: Model, batcher: Batcher, texts: Sequence[str], pool: ThreadPoolExecutor) -> list[Future]:
    """The first text occupies the model, the others come meanwhile."""
    model.free.clear()
    asked = [pool.submit(batcher.vector, texts[0])]
    wait_for(lambda: model.calls, what="the first call")
    for number, text in enumerate(texts[1:], start=1):
        asked.append(pool.submit(batcher.vector, text))
        wait_for(lambda number=number: len(batcher._waiting) == number, what="the queue", every=0.001)
    model.free.set()
    return asked


def test_alone_a_query_goes_at_once() -> None:
    model = Model()
    batcher = Batcher(model.embed)
    assert [batcher.vector(text)[0] for text in ("a", "bb")] == [1, 2]
    assert model.calls == [["a"], ["bb"]]


def test_what_comes_while_the_model_is_busy_goes_together() -> None:
    model = Model()
    batcher = Batcher(model.embed)
    texts = ["x" * (number + 1) for number in range(MOST + 4)]
    with ThreadPoolExecutor(len(texts)) as pool:
        asked = ask_while_busy(model, batcher, texts, pool)
        assert [each.result(10)[0] for each in asked] == [len(text) for text in texts]
    assert [len(call) for call in model.calls] == [1, MOST, 3]
    assert batcher.vector("after")[0] == 5


def test_one_bad_text_fails_alone() -> None:
    model = Model(refuses="bad")
    batcher = Batcher(model.embed)
    with ThreadPoolExecutor(4) as pool:
        asked = ask_while_busy(model, batcher, ["a", "bb", "bad", "cccc"], pool)
        with pytest.raises(EmbeddingError, match="no"):
            asked[2].result(10)
        assert [asked[number].result(10)[0] for number in (0, 1, 3)] == [1, 2, 4]


def test_a_server_that_is_away_is_asked_once_for_all() -> None:
    model = Model(refuses="b", retryable=True)
    batcher = Batcher(model.embed)
    with ThreadPoolExecutor(3) as pool:
        asked = ask_while_busy(model, batcher, ["a", "b", "c"], pool)
        for number in (1, 2):
            with pytest.raises(EmbeddingError):
                asked[number].result(10)
    assert model.calls == [["a"], ["b", "c"]]
    assert batcher.vector("later")[0] == 5  # and the next one finds the model free


def test_a_failure_of_another_kind_reaches_everybody() -> None:
    def broken(texts: Sequence[str]) -> np.ndarray:
        raise RuntimeError("broken")

    batcher = Batcher(broken)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            batcher.vector("a")


def test_many_threads_each_get_their_own_vector() -> None:
    model = Model()
    batcher = Batcher(model.embed, calls=2)
    texts = ["x" * (number % 50 + 1) for number in range(400)]
    with ThreadPoolExecutor(16) as pool:
        assert [int(found[0]) for found in pool.map(batcher.vector, texts)] == [len(text) for text in texts]
    assert sum(map(len, model.calls)) == len(texts)
    assert max(map(len, model.calls)) <= MOST
