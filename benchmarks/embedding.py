"""Throughput and latency of the local embedder: `python benchmarks/embedding.py [--rounds 5]`.

Passages of about 205 tokens and short queries are cut from the Python manual that every interpreter
carries (pydoc_data). Variants are interleaved round by round and the median is reported, so that a noisy
neighbour slows all of them alike: trust the ratios, not the absolute numbers. CPU time per passage (all
threads, which do not spin) tells variants apart even on a machine that is busy with something else.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from apps.documents.embedding.fake import FakeEmbedder
from apps.documents.embedding.local import LocalEmbedder, packaged_model_dir

PASSAGE_TOKENS = 205
BUDGETS = (256, 512, 1024, 2048, 4096, 8192, 16_384)


def passages(embedder: LocalEmbedder, number: int) -> list[str]:
    """Cut prose into passages of PASSAGE_TOKENS +- 20 tokens (deterministic)."""
    words = re.sub(r"\s+", " ", " ".join(topics[name] for name in sorted(topics))).split()
    ends = np.cumsum(embedder.count(words))
    spread = np.random.default_rng(0).integers(-20, 21, number)
    found, start = [], 0
    for extra in spread:
        end = int(np.searchsorted(ends, (ends[start - 1] if start else 0) + PASSAGE_TOKENS + extra))
        found.append(" ".join(words[start:end]))
        start = end
    return found


def plain_session(threads: int) -> Any:
    """The same encoder from standard ONNX operators; ONNX Runtime's optimiser may fuse what it recognises."""
    import onnx
    import onnxruntime
    from safetensors.numpy import load_file

    directory = packaged_model_dir()
    assert directory is not None
    w = load_file(directory / "model.safetensors")
    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {}

    def op(kind: str, *inputs: Any, **attributes: Any) -> str:
        names = []
        for value in inputs:
            if isinstance(value, np.ndarray):
                constants[f"c{len(constants)}"] = value
                value = f"c{len(constants) - 1}"
            names.append(value)
        nodes.append(onnx.helper.make_node(kind, names, [f"n{len(nodes)}"], **attributes))
        return f"n{len(nodes) - 1}"

    def linear(x: str, name: str) -> str:
        return op("Add", op("MatMul", x, np.ascontiguousarray(w[f"{name}.weight"].T)), w[f"{name}.bias"])

    def norm(x: str, name: str) -> str:
        return op("LayerNormalization", x, w[f"{name}.weight"], w[f"{name}.bias"], axis=-1, epsilon=1e-12)

    def heads(x: str) -> str:
        return op("Transpose", op("Reshape", x, np.array([0, 0, 12, 32])), perm=[0, 2, 1, 3])

    def number(value: float) -> np.ndarray:
        return np.array(value, dtype=np.float32)

    width = op("Slice", op("Shape", "ids"), np.array([1]), np.array([2]))
    places = op("Slice", w["embeddings.position_embeddings.weight"], np.array([0]), width, np.array([0]))
    x = op("Add", op("Gather", w["embeddings.word_embeddings.weight"], "ids"), places)
    x = norm(op("Add", x, w["embeddings.token_type_embeddings.weight"][0]), "embeddings.LayerNorm")
    mask = op("Cast", "mask", to=1)
    hidden = op("Mul", op("Sub", number(1), op("Unsqueeze", mask, np.array([1, 2]))), number(-1e9))
    for layer in (f"encoder.layer.{index}" for index in range(6)):
        q, k, v = (heads(linear(x, f"{layer}.attention.self.{n}")) for n in ("query", "key", "value"))
        scores = op("Div", op("MatMul", q, op("Transpose", k, perm=[0, 1, 3, 2])), number(32**0.5))
        mixed = op("MatMul", op("Softmax", op("Add", scores, hidden), axis=-1), v)
        mixed = op("Reshape", op("Transpose", mixed, perm=[0, 2, 1, 3]), np.array([0, 0, 384]))
        mixed = linear(mixed, f"{layer}.attention.output.dense")
        x = norm(op("Add", mixed, x), f"{layer}.attention.output.LayerNorm")
        wide = linear(x, f"{layer}.intermediate.dense")
        gate = op("Add", op("Erf", op("Div", wide, number(2**0.5))), number(1))
        wide = op("Mul", op("Mul", wide, gate), number(0.5))
        x = norm(op("Add", linear(wide, f"{layer}.output.dense"), x), f"{layer}.output.LayerNorm")
    pooled = op("Squeeze", op("MatMul", op("Unsqueeze", mask, np.array([1])), x), np.array([1]))
    op("LpNormalization", pooled, axis=1, p=2)

    helper, types = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info(name, types.INT32, ["batch", "tokens"]) for name in ("ids", "mask")],
        [helper.make_tensor_value_info(nodes[-1].output[0], types.FLOAT, ["batch", 384])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passages", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache-dir", type=Path, default=Path(tempfile.gettempdir()) / f"ragsite-bench-{os.getuid()}")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))

    def local(budget: int, threads: int) -> LocalEmbedder:
        return LocalEmbedder(cache_dir=arguments.cache_dir, budget=budget, threads=threads)

    variants = {f"fused, {cores} threads, budget {budget}": local(budget, cores) for budget in BUDGETS}
    variants["fused, 1 thread, budget 1024"] = one_thread = local(1024, 1)
    default = variants[f"fused, {cores} threads, budget 1024"]
    for budget in (1024, 8192):
        plain = variants[f"plain, {cores} threads, budget {budget}"] = local(budget, cores)
        plain._session = plain_session(cores)
    texts = passages(default, arguments.passages)
    tokens = sum(default.count(texts))
    assert np.abs(plain.embed(texts[:8]) - default.embed(texts[:8])).max() < 1e-5

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for _ in range(arguments.rounds):
        for name, embedder in variants.items():
            times[name].append(seconds(lambda e=embedder: e.embed(texts)))
    print(f"{len(texts)} passages, {tokens / len(texts):.0f} tokens on average, median of {arguments.rounds}\n")
    print("| local embedder | texts/s | tokens/s | CPU ms per passage |\n|---|---|---|---|")
    for name, samples in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*samples, strict=True))
        print(
            f"| {name} | {len(texts) / wall:.1f} | {tokens / wall:,.0f} | {1000 * cpu / len(texts):.1f} |",
            flush=True,
        )

    print("\n| short query | p50 ms | p95 ms |\n|---|---|---|")
    queries = [" ".join(text.split()[:9]) for text in texts] * 4
    runs = {
        f"fused, {cores} threads": default,
        "fused, 1 thread": one_thread,
        f"plain, {cores} threads": plain,
    }
    latencies: dict[str, list[float]] = {name: [] for name in runs}
    for query in queries:
        for name, embedder in runs.items():
            latencies[name].append(1000 * seconds(lambda e=embedder, q=query: e.embed([q]))[0])
    for name, samples in latencies.items():
        p50, p95 = np.percentile(samples, [50, 95])
        print(f"| {name} | {p50:.1f} | {p95:.1f} |")

    fake = FakeEmbedder()
    short = [f"question {i} about topic {i % 97}" for i in range(20_000)]
    rate = len(short) / seconds(lambda: fake.embed(short))[0]
    print(f"\nFake embedder: {rate:,.0f} short texts/s")


if __name__ == "__main__":
    main()
