"""The constants of `manage.py capacity` from what capacity.py measured; and what they say of a size that no fit saw.

Least squares of relative errors, so that a small size counts as much as a large one.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from apps.documents.capacity import Constant, Constants, Wishes, needs
from apps.documents.capacity.constants import EXAMPLE
from apps.documents.capacity.sizes import index_entry, vector_row
from apps.documents.capacity.times import build_ms, dense_ms

Points = dict[str, list[dict[str, Any]]]
Rows = Iterator[tuple[str, str, str]]
#: (names of constants, their values, how well they fit)
Found = Iterator[tuple[list[str], list[float], "Fit | str"]]


@dataclass(frozen=True)
class Fit:
    """values ~ sum of numbers x columns. worst: the largest relative error."""

    numbers: list[float]
    r2: float
    worst: float
    points: int

    def __str__(self) -> str:
        return f"R² {self.r2:.4f}, at worst {self.worst:.1%} off, {self.points} points"


def fit(columns: Sequence[Sequence[float]], values: Sequence[float]) -> Fit:
    """columns: each a number for each value. One that would count negatively is left out."""
    wide, target = np.array(columns, float).T, np.array(values, float)
    kept = list(range(wide.shape[1]))
    while True:
        found = np.linalg.lstsq(wide[:, kept] / target[:, None], np.ones(len(target)), rcond=None)[0]
        if found.min() >= 0:
            break
        del kept[int(found.argmin())]
    numbers = np.zeros(wide.shape[1])
    numbers[kept] = found
    told = wide @ numbers
    spread = float(((target - target.mean()) ** 2).sum())
    r2 = 1 - float(((target - told) ** 2).sum()) / spread if spread else 1.0
    return Fit(numbers.tolist(), r2, float(np.abs(told / target - 1).max()), len(target))


def powers(columns: Sequence[Sequence[float]], values: Sequence[float]) -> Fit:
    """values ~ the first number x each column to the power of its number; columns: a tuple for each value."""
    wide = np.hstack([np.ones((len(values), 1)), np.log(np.array(columns, float))])
    target = np.log(np.array(values, float))
    found = np.linalg.lstsq(wide, target, rcond=None)[0]
    off = wide @ found - target
    r2 = 1 - float((off**2).sum() / ((target - target.mean()) ** 2).sum())
    return Fit([float(np.exp(found[0])), *found[1:].tolist()], r2, float(np.abs(np.exp(off) - 1).max()), len(values))


def run(points: Points, *, proof: int) -> Rows:
    growth = [point for point in points["growth"] if point["chunks"] < 0.99 * proof]
    constants = _put(Constants.load(), _all(points, growth))
    constants = _put(constants, _bits(points, constants))
    constants = _put(constants, _inserts(growth, constants))
    constants = _put(constants, _publishing(points, constants))
    for name, value in constants:
        yield f"{name}, {value.unit}", "", f"{value:.4g}; {value.source}"
    if file := os.environ.get("BENCH_CONSTANTS"):
        Path(file).write_text(constants.dump())
    yield from _layout(points)
    for point in points["growth"]:
        if point["chunks"] >= 0.99 * proof:
            yield from _proof(point, constants)


def _put(constants: Constants, found: Found) -> Constants:
    made = {}
    for names, numbers, told in found:
        source = f"measured {time.strftime('%Y-%m-%d')} (capacity): {told}"
        for name, number in zip(names, numbers, strict=True):
            made[name] = Constant(float(f"{number:.4g}"), getattr(constants, name).unit, source)
    return replace(constants, **made)


def _all(points: Points, growth: list[dict[str, Any]]) -> Found:
    work, others = points["work"], points["others"]

    def one(names: str, columns: Sequence[Sequence[float]], values: Sequence[float]) -> Any:
        found = fit(columns, values)
        return names.split(), found.numbers, found

    def of(where: list[dict[str, Any]], name: str) -> list[float]:
        return [each[name] for each in where]

    documents, chunks, text = (of(work, name) for name in ("documents", "chunks", "text"))
    model = points["model"][0]
    yield ["text"], [model["text"] / model["tokens"]], "English passages, the packaged model's tokens"
    yield one("document", [of(growth, "documents")], [_grown(each, "document") for each in growth])
    both = [*work, *growth]  # as workers leave them, with rows that are dead, and as a first load does
    shapes = [of(both, name) for name in ("documents", "text", "chunks")]
    yield one("version stored_text version_chunk", shapes, [_grown(each, "documentversion") for each in both])
    yield one("original stored_original", shapes[:2], [_grown(each, "blob") for each in both])
    yield one("chunk chunk_text", [chunks, text], [_grown(each, "chunk", "table") for each in work])
    yield one("chunk_keys", [of(growth, "chunks")], [_grown(each, "chunk", "btree") for each in growth])
    yield _word_index(growth)
    yield one("vector_keys", [of(growth, "chunks")], [_grown(each, "vectors", "btree") for each in growth])
    yield one("job", [documents[:2]], [_grown(each, "ingestionjob") for each in work[:2]])

    memory = [each["bytes"] - _payload(each["dimensions"], each["storage"]) for each in points["memory"]]
    yield (
        ["graph_memory"],
        [statistics.mean(memory)],
        f"{min(memory):.0f} to {max(memory):.0f} for four kinds of vector",
    )

    graphs = [(each["chunks"], each["dimensions"], each) for each in growth]
    graphs += [(each["chunks"], each["dimensions"], each) for each in others if each["index"] == "hnsw"]
    sizes = [(n / EXAMPLE[0], d / EXAMPLE[1]) for n, d, _ in graphs]
    built = powers(sizes, [each["build_busy"] * 1000 / n for n, _, each in graphs])
    yield ["graph_build", "graph_build_power", "graph_build_dimensions"], built.numbers, built
    asked = powers(sizes, [each["dense_ms"] for _, _, each in graphs])
    yield ["dense", "dense_power", "dense_dimensions"], asked.numbers, asked
    lists = [each for each in others if each["index"] == "ivfflat"]
    rows, count = of(lists, "chunks"), [max(1, each["chunks"] // 1000) for each in lists]
    yield one(
        "lists_build lists_build_list",
        [rows, [n * each for n, each in zip(rows, count, strict=True)]],
        [each["build_busy"] * 1000 for each in lists],
    )
    compared = [2 * n / each**0.5 * _payload(384) for n, each in zip(rows, count, strict=True)]
    yield one("lists_search lists_search_byte", [[1.0] * len(lists), compared], of(lists, "dense_ms"))
    yield one("words_build", [of(growth, "text")], [each["words_busy"] * 1000 for each in growth])
    yield one(
        "words words_chunk",
        [[1.0] * len(growth), of(growth, "chunks")],
        [each["hybrid_ms"] - each["dense_ms"] for each in growth],
    )
    yield one("load_chunk", [of(growth, "loaded")], [each["load_busy"] * 1000 for each in growth])
    yield one(
        "work_document work_token",
        [documents, of(work, "tokens")],
        [1000 * (each["accept_own"] + each["prepare_own"] + each["publish_own"]) for each in work],
    )
    told = f"{model['passages']} passages of {model['tokens'] // model['passages']} tokens, all-MiniLM-L6-v2"
    yield ["model_token"], [model["busy"] * 1000 / model["tokens"]], told
    yield ["query_vector"], [model["query_ms"]], "200 questions, one by one"
    yield ["measured_chunks"], [max(of(growth, "chunks"))], "the largest that was fitted"


def _bits(points: Points, constants: Constants) -> Found:
    """How many times as long a graph of bits takes as one of vectors."""
    found = [each for each in points["others"] if each["index"] == "binary"]
    for name, kind in (("bits_build", "build_busy"), ("bits_search", "dense_ms")):
        ratios = []
        for each in found:
            wishes = Wishes(documents=each["chunks"], chunks_per_document=1, dimensions=each["dimensions"])
            built, asked = build_ms(wishes, constants, each["chunks"]) / 1000, dense_ms(wishes, constants)
            ratios.append(each[kind] / (built if name == "bits_build" else asked))
        yield [name], [statistics.mean(ratios)], f"{min(ratios):.2f} to {max(ratios):.2f} for {len(found)} graphs"


def _word_index(growth: list[dict[str, Any]]) -> tuple[list[str], list[float], Fit]:
    """A power of the size: words that are frequent are stored ever more densely."""
    sizes = [(point["chunks"] / growth[-1]["chunks"],) for point in growth]
    fitted = powers(sizes, [_grown(point, "chunk", "gin") / point["text"] for point in growth])
    return ["word_index", "word_index_power"], fitted.numbers, fitted


def _inserts(growth: list[dict[str, Any]], constants: Constants) -> Found:
    """An entry that comes to a graph, beside one of its build; what else its chunk takes is load_chunk."""
    built = [point["live"] * _entry_ms(point["chunks"], constants) for point in growth]
    found = [point["live_busy"] * 1000 - point["live"] * constants.load_chunk for point in growth]
    told = fit([built], found)
    yield ["insert"], told.numbers, told


def _publishing(points: Points, constants: Constants) -> Found:
    """Of the database, without the graph's entries."""
    work = points["work"]
    spent = [1000 * sum(each[f"{step}_busy"] for step in ("accept", "prepare", "publish")) for each in work]
    graph = [constants.insert * each["chunks"] * _entry_ms(each["chunks"] / 2, constants) for each in work]
    columns = [[each[name] for each in work] for name in ("documents", "chunks")]
    told = fit(columns, [a - b for a, b in zip(spent, graph, strict=True)])
    yield ["publish_document", "publish_chunk"], told.numbers, told


def _entry_ms(entries: float, constants: Constants) -> float:
    return build_ms(Wishes(documents=1), constants, entries) / entries


def _grown(point: dict[str, Any], table: str, kind: str | None = None) -> float:
    """Bytes that came to a table, or to its indexes of a kind; all of it where none is named."""
    kinds = [kind] if kind else [each for each in point["bytes"][table] if each not in ("hnsw", "ivfflat")]
    return float(sum(point["bytes"][table][each] - point["base"][table].get(each, 0) for each in kinds))


def _payload(dimensions: int, storage: str = "halfvec") -> int:
    return 8 + dimensions * (2 if storage == "halfvec" else 4)


def _layout(points: Points) -> Rows:
    """What sizes.py computes from the layout of pages, beside real tables."""
    off: dict[str, list[float]] = {"vectors' rows": [], "vector indexes": []}
    for each in [*points["growth"], *points["others"]]:
        kind = {"binary": "bits"}.get(each.get("index", "hnsw"), each.get("index", "hnsw"))
        wishes = Wishes(documents=each["chunks"], chunks_per_document=1, dimensions=each["dimensions"], index=kind)
        found = each["bytes"]["vectors"]
        off["vectors' rows"].append(each["chunks"] * vector_row(wishes) / found["table"] - 1)
        off["vector indexes"].append(each["chunks"] * index_entry(wishes) / (found.get("hnsw") or found["ivfflat"]) - 1)
    for name, errors in off.items():
        yield f"computed from the layout: {name}", "", f"{min(errors):+.1%} to {max(errors):+.1%}, {len(errors)} tables"


def _proof(point: dict[str, Any], constants: Constants) -> Rows:
    """The command's own model of the size that was left out."""
    chunks = point["chunks"]
    wishes = Wishes(
        documents=point["documents"],
        chunks_per_document=chunks / point["documents"],
        chunk_tokens=point["text"] / chunks / constants.text,
        versions=1,
        changed_per_day=0,
        job_days=0,
    )
    told = needs(wishes, constants)
    found = point["bytes"]
    measured = {
        "documents": _grown(point, "document"),
        "versions": _grown(point, "documentversion"),
        "originals": _grown(point, "blob"),
        "chunks": _grown(point, "chunk", "table"),
        "keys of chunks": _grown(point, "chunk", "btree"),
        "word index": _grown(point, "chunk", "gin"),
        "vectors": _grown(point, "vectors", "table"),
        "keys of vectors": _grown(point, "vectors", "btree"),
        "vector index": float(found["vectors"]["hnsw"]),
    }
    for name, size in measured.items():
        yield f"{chunks} chunks: {name}, MiB", *_beside(told.disk[name] / 2**20, size / 2**20)
    yield f"{chunks} chunks: all of these, MiB", *_beside(told.disk_total / 2**20, sum(measured.values()) / 2**20)
    yield f"{chunks} chunks: vector index built, s of processors", *_beside(told.build_seconds, point["build_busy"])
    yield f"{chunks} chunks: dense search, ms of a processor", *_beside(told.dense_ms, point["dense_ms"])
    yield f"{chunks} chunks: hybrid search, ms of a processor", *_beside(told.hybrid_ms, point["hybrid_ms"])
    yield f"{chunks} chunks: recall@10 of the dense one", "", f"{point['recall']:.3f}"


def _beside(told: float, found: float) -> tuple[str, str]:
    return f"predicted {told:,.2f}", f"{found:,.2f} ({told / found - 1:+.1%})"
