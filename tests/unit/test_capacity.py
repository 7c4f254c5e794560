"""What `manage.py capacity` computes: it grows with what is wished for, in the right units, and refuses nonsense."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

import manage
from apps.documents.capacity import BadWish, Constants, Needs, Wishes, needs, times
from apps.documents.capacity.sizes import disk, entries_per_page, index_entry, vector_row
from apps.documents.capacity.times import build_ms, dense_ms
from apps.retrieval import policy

CONSTANTS = Constants.load()
LITTLE = Wishes(documents=10_000)
EVERY = set(disk(LITTLE, CONSTANTS))


def test_graphs_are_searched_as_far_as_searches_do() -> None:
    assert (times.LARGE, times.MOST_FURTHER) == (policy.LARGE, policy.MOST_FURTHER)


def told(*arguments: str) -> str:
    out = io.StringIO()
    call_command("capacity", *arguments, stdout=out)
    return out.getvalue()


def of(**wishes: Any) -> Needs:
    return needs(replace(LITTLE, **wishes), CONSTANTS)


def test_every_constant_has_a_unit_and_tells_where_it_was_measured() -> None:
    for name, constant in CONSTANTS:
        assert constant.unit and constant.source.startswith(("measured", "published", "assumed")), name


@pytest.mark.parametrize("documents", [10**power for power in range(5, 9)])
def test_ten_times_the_documents_take_ten_times_the_disk_and_no_less_of_anything(documents: int) -> None:
    less, more = of(documents=documents), of(documents=10 * documents)
    assert more.disk_total == pytest.approx(10 * less.disk_total)
    assert more.cached == pytest.approx(10 * less.cached)
    assert more.build_seconds > 10 * less.build_seconds  # n log n
    assert more.embed_seconds == pytest.approx(10 * less.embed_seconds)
    assert more.gpu_hours == pytest.approx(10 * less.gpu_hours)
    assert more.dense_ms > less.dense_ms and more.hybrid_ms > less.hybrid_ms
    assert more.place.nodes >= less.place.nodes and more.place.graphs >= less.place.graphs


@pytest.mark.parametrize(
    ("wish", "parts"),
    [
        ({"chunk_tokens": 300}, {"versions", "originals", "chunks", "word index"}),
        ({"original_bytes": 10**6}, {"originals"}),
        ({"versions": 3}, {"versions", "originals", "chunks", "keys of chunks", "vectors", "keys of vectors"}),
        ({"dimensions": 768}, {"vectors", "vector index"}),
        ({"storage": "vector"}, {"vectors", "vector index"}),
        ({"m": 32}, {"vector index"}),
        ({"changed_per_day": 0.1}, {"job ledger"}),
        ({"added_per_hour": 100}, {"job ledger"}),
        ({"chunks_per_document": 20}, EVERY - {"documents", "job ledger"}),
    ],
)
def test_a_wish_for_more_adds_to_its_tables_and_to_no_other(wish: dict[str, Any], parts: set[str]) -> None:
    before, after = disk(LITTLE, CONSTANTS), disk(replace(LITTLE, **wish), CONSTANTS)
    assert {name for name in before if after[name] > before[name]} == parts
    assert all(after[name] >= before[name] for name in before)


def test_the_layout_of_pages_gives_what_pgvector_writes() -> None:
    """Sizes of indexes and tables that were measured (benchmarks/RESULTS.md, partitions)."""
    assert entries_per_page(8_000) == 1 and entries_per_page(100) == 75
    vectors = Wishes(documents=200_000, chunks_per_document=1)
    assert 200_000 * index_entry(vectors) / 2**20 == pytest.approx(223, rel=0.01)
    assert 200_000 * index_entry(replace(vectors, m=8)) / 2**20 == pytest.approx(195, rel=0.01)
    assert vector_row(vectors) == pytest.approx(910, rel=0.01)
    assert vector_row(replace(vectors, dimensions=1536)) == pytest.approx(4_262, rel=0.02)  # out of line
    for dimensions in range(1, 4_001, 7):
        wide = replace(vectors, dimensions=dimensions)
        assert vector_row(wide) > 2 * dimensions and index_entry(wide) > 2 * dimensions
        assert index_entry(replace(wide, index="bits")) <= index_entry(wide)


def test_each_further_graph_costs_searches_and_saves_memory_while_one_is_built() -> None:
    one, eight = of(graphs=1, documents=10**6), of(graphs=8, documents=10**6)
    assert eight.dense_ms > 3 * one.dense_ms
    assert eight.build_memory == pytest.approx(one.build_memory / 8)
    assert eight.build_seconds < one.build_seconds


def test_what_one_machine_cannot_hold_goes_to_more_and_what_it_cannot_answer_to_replicas() -> None:
    small = of(documents=10_000)
    assert (small.place.engine, small.place.nodes, small.place.replicas) == ("postgres", 1, 0)
    assert small.place.enough and not small.notes
    busy = of(documents=10_000, searches_per_second=3_000, node_cores=8)
    assert busy.place.engine == "postgres" and busy.place.replicas > 0
    large = of(documents=10**7)
    assert large.place.engine == "citus" and large.place.nodes > 1
    assert large.place.graphs % large.place.nodes == 0
    assert large.cached / large.place.nodes <= 0.6 * LITTLE.node_memory
    forced = of(documents=10**7, engine="postgres")
    assert not forced.place.enough and any("not enough" in note for note in forced.notes)
    larger = of(documents=10**7, node_memory=16 * LITTLE.node_memory)
    assert larger.place.nodes < large.place.nodes


def test_no_number_of_shards_does_any_number_of_searches_and_it_says_so() -> None:
    endless = of(documents=10**8, searches_per_second=10**6)
    assert not endless.place.enough and any("No number of nodes" in note for note in endless.notes)


def test_what_is_beyond_the_measurements_is_called_extrapolated() -> None:
    beyond = of(documents=10**8)
    assert any("extrapolated" in note for note in beyond.notes)
    assert any("rag_recall_at_k" in note for note in beyond.notes)
    assert any("384" in note for note in of(dimensions=1024).notes)


def test_nothing_that_changes_needs_no_keeping_up() -> None:
    still = of(changed_per_day=0)
    assert still.rebuilt_days is None and still.chunks_per_day == 0
    assert still.model_cores == still.worker_cores == 0
    assert of(changed_per_day=0.1, replaced=0.5).rebuilt_days == pytest.approx(2)


def test_an_index_of_bits_or_lists_is_smaller_and_costs_what_was_measured() -> None:
    bits, lists = replace(LITTLE, index="bits"), replace(LITTLE, index="ivfflat")
    assert index_entry(bits) < index_entry(lists) < index_entry(LITTLE)
    assert build_ms(bits, CONSTANTS, 1e5) == pytest.approx(build_ms(LITTLE, CONSTANTS, 1e5) * CONSTANTS.bits_build)
    assert dense_ms(lists, CONSTANTS, 4) == pytest.approx(2 * dense_ms(lists, CONSTANTS), rel=0.3)  # by the root
    assert needs(lists, CONSTANTS).build_memory == 0


@pytest.mark.parametrize(
    "wish",
    [
        {"documents": 0},
        {"documents": -5},
        {"documents": 1e12},
        {"chunks_per_document": 0},
        {"dimensions": 4_001},
        {"dimensions": 2_001, "storage": "vector"},
        {"storage": "bit"},
        {"index": "flat"},
        {"engine": "mysql"},
        {"versions": 0.5},
        {"hybrid": 1.1},
        {"busy": 0},
        {"graphs": 0},
        {"m": 1},
        {"node_memory": 0},
        {"searches_per_second": -1},
        {"documents": float("nan")},
    ],
)
def test_nonsense_is_refused_by_name(wish: dict[str, Any]) -> None:
    with pytest.raises(BadWish) as refused:
        replace(LITTLE, **wish)
    assert str(refused.value).startswith(next(iter(wish)).replace("_", " "))


def test_the_command_tells_a_table_with_what_it_assumed_and_how_well_the_fits_hold() -> None:
    table = told("--chunks", "10M", "--searches-per-second", "50")
    assert table.startswith("10,000,000 live chunks of 1,000,000 documents, halfvec(384), hnsw")
    for part in ("Disk", "Memory", "Machines", "Searches", "The first load", "Keeping up", "Assumed", "Constants"):
        assert f"\n{part}" in table
    assert "R²" in table and "at worst" in table and "published" in table
    assert f"{disk(Wishes(documents=1e6), CONSTANTS)['vector index'] / 2**30:,.1f} GiB" in table


def test_the_command_gives_json_in_bytes() -> None:
    found = json.loads(told("--documents", "1_000", "--chunks-per-document", "5", "--node-memory", "32GiB", "--json"))
    assert found["needs"]["chunks"] == 5_000 and found["wishes"]["node_memory"] == 32 * 2**30
    assert sum(found["needs"]["disk"].values()) > 5_000 * 2_000
    assert found["constants"]["chunk"]["unit"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "how many"),
        (("--documents", "many"), "no number"),
        (("--documents", "1e3e3"), "no number"),
        (("--documents", "1,5M"), "no number"),
        (("--documents", "1,500"), "no number"),
        (("--documents", "5", "--node-memory", "1,5G"), "no number"),
        (("--documents", "5", "--chunks", "5"), "not both"),
        (("--documents", "5", "--dimensions", "5000"), "dimensions go from 1 to 4000"),
        (("--documents", "5", "--node-memory", "64X"), "no number"),
        (("--documents", "5", "--constants", "/nowhere.json"), "cannot be read"),
        (("--documents", "5", "--constants", str(Path(__file__))), "does not hold the constants"),
    ],
)
def test_the_command_refuses_what_it_does_not_understand(arguments: tuple[str, ...], why: str) -> None:
    with pytest.raises(CommandError, match=why):
        told(*arguments)


def test_no_server_is_started_for_it(tmp_path: Path) -> None:
    """But for --from-database, which asks one."""
    environment = {"PATH": os.environ["PATH"], "RAGSITE_DATA_DIR": str(tmp_path), "SECRET_KEY": "test"}
    done = subprocess.run(
        [sys.executable, "manage.py", "capacity", "--documents", "1M"],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "10,000,000 live chunks" in done.stdout, done.stderr
    assert not {"postgres", "redis"} & {path.name for path in tmp_path.iterdir()}
    assert manage.needs_servers(["capacity", "--from-database"])
    assert manage.needs_servers(["capacity", "--from-d", "--json"]), "as argparse understands it"


def test_constants_of_ones_own_machine_take_the_place_of_the_products(tmp_path: Path) -> None:
    own = json.loads(CONSTANTS.dump())
    own["gpu_chunks"] |= {"value": 100.0, "source": "measured here"}
    file = tmp_path / "constants.json"
    file.write_text(json.dumps(own))
    table = told("--chunks", "36M", "--load-hours", "10", "--constants", str(file))
    assert "100.0 hours of one" in table and "measured here" in table
    del own["chunk"]
    file.write_text(json.dumps(own))
    with pytest.raises(CommandError, match="does not hold the constants"):
        told("--chunks", "1", "--constants", str(file))
