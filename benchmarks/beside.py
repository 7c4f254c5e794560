"""`manage.py ingest --bulk` beside LangChain, LlamaIndex and Chroma (peers.py), by turns, on the same Postgres: a first
load with a free embedder until the vector index answers, and again with 1 % changed.

PEERS_PYTHON names the interpreter of an environment with requirements-peers.txt.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ragsite import embedded
from tests.support.processes import ROOT

from .load import ingest
from .peers import write_inputs
from .stack import fake_house

DOCUMENTS = 29_686  # as many as the reference measurements loaded
TURNS = ("ragsite", "chroma", "langchain", "ragsite", "llamaindex", "chroma", "ragsite")

#: Seconds of the first load with its index, and of the second run.
Measured = tuple[float, float]


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    python = os.environ.get("PEERS_PYTHON")
    if not python:
        raise SystemExit("PEERS_PYTHON must name the interpreter of an environment with requirements-peers.txt")
    write_inputs(data, DOCUMENTS)
    found: dict[str, list[Measured]] = defaultdict(list)
    for number, name in enumerate(TURNS):
        found[name].append(_ours(data, number) if name == "ragsite" else _peer(python, name, data))
    ours = found.pop("ragsite")
    best = min(load for measured in found.values() for load, _ in measured)
    yield (
        f"first load of {DOCUMENTS} passages, until the index answers",
        ">= 1.5 of the best peer",
        f"{_rates(ours)}: {best / _mean(ours, 0):.2f} of the best; "
        + "; ".join(f"{name} {_rates(measured)}" for name, measured in found.items()),
    )
    yield (
        "the same again, 1 % changed",
        ">= 4 times as fast as LangChain",
        f"{_seconds(ours)}: {found['langchain'][0][1] / _mean(ours, 1):.1f} times; "
        + "; ".join(f"{name} {_seconds(measured)}" for name, measured in found.items()),
    )


def _ours(data: Path, number: int) -> Measured:
    collection, _ = fake_house(f"beside{number}")
    rows = [[json.loads(line)["text"] for line in (data / f"{name}.jsonl").open()] for name in ("texts", "changed")]
    load, index = ingest(data, collection, rows[0])
    again, _ = ingest(data, collection, rows[1])
    return load + index, again


def _peer(python: str, name: str, data: Path) -> Measured:
    argv = [python, "benchmarks/peers.py", name, "--texts", data / "texts.jsonl", "--changed", data / "changed.jsonl"]
    argv += ["--vectors", data / "vectors.npz", "--database", embedded.owner_url(embedded.data_dir())]
    told = json.loads(subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    return told["load_seconds"], told["rerun_seconds"]


def _mean(measured: list[Measured], part: int) -> float:
    return sum(each[part] for each in measured) / len(measured)


def _rates(measured: list[Measured]) -> str:
    return ", ".join(f"{DOCUMENTS / load:.0f}" for load, _ in measured) + "/s"


def _seconds(measured: list[Measured]) -> str:
    return ", ".join(f"{again:.1f}" for _, again in measured) + " s"
