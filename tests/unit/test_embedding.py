"""The seam, the batching, the fake backend and the door to them all."""

import hashlib
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.documents import embedding
from apps.documents.embedding import EmbeddingError, get_embedder, token_batches
from apps.documents.embedding.fake import FakeEmbedder

ROOT = Path(embedding.__file__).resolve().parents[3]


# Batching


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(1, 2000), st.none() | st.integers(1, 10))
def test_batches_hold_every_index_once_within_the_budget(lengths, budget, max_items):
    batches = list(token_batches(lengths, budget, max_items=max_items))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
        assert max_items is None or len(batch) <= max_items


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(1, 2000))
def test_batches_go_from_long_to_short_without_overlap(lengths, budget):
    flat = [lengths[i] for batch in token_batches(lengths, budget) for i in batch]
    assert flat == sorted(lengths, reverse=True)


def test_batches_are_filled_before_a_new_one_starts():
    assert list(token_batches([10, 100, 10, 50, 50], 100)) == [[1], [3, 4], [0, 2]]


@pytest.mark.parametrize("kwargs", [{"budget": 0}, {"budget": 10, "max_items": 0}])
def test_batches_refuse_a_limit_below_one(kwargs):
    with pytest.raises(ValueError, match="at least 1"):
        list(token_batches([1], **kwargs))


def test_an_embedding_error_survives_pickling():
    error = pickle.loads(pickle.dumps(EmbeddingError("timeout", "Too slow.", retryable=True)))
    assert (error.code, error.retryable, str(error)) == ("timeout", True, "Too slow.")


# The fake backend

TEXTS = [
    "",
    "!?",
    "Straße",
    "検索エンジン",
    "🦊 fox",
    "the quick brown fox",
    "the quick brown fox",
    "a " * 3000,
]


@pytest.mark.parametrize("dimensions", [8, 384, 1000])
def test_fake_vectors_have_unit_norm_and_the_asked_shape(dimensions):
    vectors = FakeEmbedder(dimensions=dimensions).embed(TEXTS)
    assert vectors.shape == (len(TEXTS), dimensions) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert FakeEmbedder(dimensions=dimensions).embed([]).shape == (0, dimensions)


def test_fake_vectors_do_not_depend_on_neighbours_or_position():
    texts = [f"passage {i} about topic {i % 7}" for i in range(2100)] + TEXTS
    together = FakeEmbedder().embed(texts)
    for index in (0, 1023, 1024, 2099, 2100, len(texts) - 1):
        np.testing.assert_array_equal(FakeEmbedder().embed([texts[index]])[0], together[index])


def test_fake_vectors_are_the_same_bits_on_every_platform_and_version():
    digest = hashlib.sha256(FakeEmbedder().embed(TEXTS).astype("<f4").tobytes()).hexdigest()
    assert digest == "c2ad777b541dc0e28241ab4603e3380e2a002040ef751f71a84b826c3f8c7866"


def test_fake_texts_that_share_words_are_closer():
    query, near, same_words, far = FakeEmbedder().embed(
        [
            "how do I reset my password",
            "To reset a forgotten PASSWORD, open settings.",
            "password my reset I do how",
            "Quarterly revenue grew in Europe.",
        ]
    )
    assert query @ same_words > query @ near > 0.2 > abs(query @ far)
    assert query @ same_words < 0.99  # order counts a little


def test_fake_tells_texts_without_words_apart():
    vectors = FakeEmbedder().embed(["", "!", "?", "…"])
    assert len({vector.tobytes() for vector in vectors}) == 4


def test_fake_repetition_does_not_change_what_a_text_is_about():
    once, often, other = FakeEmbedder().embed(["cats sleep", "cats sleep cats sleep cats sleep", "dogs bark"])
    assert once @ often > 0.8 > 0.2 > once @ other


def test_fake_counts_words_and_punctuation():
    assert FakeEmbedder().count(["", "Hello, world!", "検索 ok", "snake_case 3.5"]) == [0, 4, 3, 4]


def test_a_lone_surrogate_is_refused_not_crashed_on():
    with pytest.raises(EmbeddingError) as caught:
        FakeEmbedder().embed(["fine", "broken \ud800"])
    assert caught.value.code == "invalid_text" and not caught.value.retryable


def test_fake_refuses_too_few_dimensions():
    with pytest.raises(ValueError, match="at least 8"):
        FakeEmbedder(dimensions=4)


def test_the_log_counts_texts_across_racing_processes(tmp_path):
    log = tmp_path / "embedded.jsonl"
    code = (
        "import sys; from apps.documents.embedding import get_embedder\n"
        "for i in range(50): get_embedder('fake').embed([f'{sys.argv[1]} {i} {j}' for j in range(20)])"
    )
    environment = os.environ | {"RAGSITE_FAKE_EMBED_LOG": str(log)}
    children = [subprocess.Popen([sys.executable, "-c", code, name], env=environment, cwd=ROOT) for name in "ab"]
    assert [child.wait(60) for child in children] == [0, 0]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 100 and sum(line["n"] for line in lines) == 2000
    digests = {digest for line in lines for digest in line["sha256"]}
    assert len(digests) == 2000 and hashlib.sha256(b"a 0 0").hexdigest() in digests


# The door


def test_an_embedder_is_loaded_once_per_process_and_settings():
    assert get_embedder("fake") is get_embedder("fake")
    assert get_embedder("fake", dimensions=16) is not get_embedder("fake")
    assert get_embedder("fake", dimensions=16).dimensions == 16


@pytest.mark.parametrize(
    ("backend", "kwargs", "variable"),
    [
        ("sbert", {}, "EMBEDDING_BACKEND"),
        ("openai", {"dimensions": 8}, "EMBEDDING_URL"),
        ("openai", {"url": "http://127.0.0.1:9/v1"}, "EMBEDDING_DIMENSIONS"),
    ],
)
def test_a_wrong_setting_is_named(backend, kwargs, variable):
    with pytest.raises(ValueError, match=variable):
        get_embedder(backend, **kwargs)


def _child(queue):
    queue.put((id(get_embedder("fake")), get_embedder("fake").embed(["x"]).tobytes()))


def test_a_forked_child_gets_an_embedder_of_its_own():
    context = multiprocessing.get_context("fork")
    mine, queue = get_embedder("fake"), context.Queue()
    with embedding._lock:  # held by "another thread" at the moment of the fork
        child = context.Process(target=_child, args=(queue,))
        child.start()
    identity, vector = queue.get(timeout=20)
    child.join(20)
    assert identity != id(mine) and vector == mine.embed(["x"]).tobytes()


def test_importing_the_package_loads_no_backend():
    code = (
        "import sys, apps.documents.embedding\n"
        "heavy = ('django', 'onnx', 'onnxruntime', 'openai', 'tokenizers', 'torch')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
