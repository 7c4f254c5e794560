"""The same invariants on a real Citus cluster: set CITUS_DATABASE_URL to its owner's URL (docs/howto/citus.md).

Settings are read once per process, so each file runs in a pytest of its own whose DATABASE_URL is the cluster's. A test
that is skipped there is shown here: by name of its reason where it is not about a cluster, by a skip of the whole file
where this machine lacks something, and otherwise as a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

HERE = Path(__file__).parent
CLUSTER = os.environ.get("CITUS_DATABASE_URL", "")

#: Reasons why a test of these files is skipped on a cluster (their beginnings), and what holds there instead.
NOT_OF_A_CLUSTER = {
    "shards have walls of their own": "test_every_shard_is_behind_a_wall of cluster.py",
    "the owner moves shards": "the owner is not behind the wall (ADR 17)",
    "so many rows come by COPY there": "each node plans for itself, as one Postgres does",
    "it is not done again": "the same as on one Postgres: of an IVFFlat index",
    "shards are no partitions": "there is no index over all that could be invalid",
    "a cluster makes the first index of all its shards by one statement": "test_a_first_index_whose_build_was_killed",
}
#: What a machine may not have. Whatever else has passed, the file is not proved then.
NOT_HERE = (
    "the cluster's workers are not on this machine",
    "CITUS_SPARE_NODE and CITUS_SUPERUSER_URL are not set",
    "CITUS_SUPERUSER_URL is not set",
    "no pages with versions beside the repository",
    "could not import 'onnxruntime'",
)

pytestmark = [
    pytest.mark.citus,
    pytest.mark.skipif(not CLUSTER, reason="CITUS_DATABASE_URL is not set: no Citus cluster to test against"),
]


@pytest.mark.parametrize(
    "name",
    [
        *("cluster.py", "test_ingest.py", "test_wall.py", "test_documents_api.py", "test_races.py", "test_kills.py"),
        *("test_sync.py", "test_schedules.py", "test_feed.py"),
        *(
            "test_ledger.py",
            "test_erasure.py",
            "test_reindex.py",
            *("test_filters.py", "test_lexical.py", "test_refine.py", "test_past.py", "test_freshness.py"),
            *("test_search_batch.py", "test_snapshot.py", "test_spaces.py"),
            "test_shared_graph.py",
            *("test_second_space.py", "test_second_model.py", "test_second_space_api.py"),
            *("test_partitions.py", "test_index_care.py", "test_recall_monitor.py", "test_drift.py"),
            *("cluster_nodes_away.py", "cluster_shards.py"),
            "test_bulk.py::test_bad_lines_fail_alone",
            "test_load.py::test_a_folder_becomes_searchable_and_again_costs_nothing",
        ),
    ],
)
def test_the_invariants_hold_on_a_cluster(name: str, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", str(HERE / name)],
        env=os.environ | {"DATABASE_URL": CLUSTER},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout[-8_000:] + run.stderr[-2_000:]
    reasons = {each.get("message", "") for each in ElementTree.parse(report).iter("skipped")}
    reasons = {reason for reason in reasons if not reason.startswith(tuple(NOT_OF_A_CLUSTER))}
    assert all(reason.startswith(NOT_HERE) for reason in reasons), f"skipped on a cluster: {reasons}"
    if reasons:
        pytest.skip("; ".join(sorted(reasons)))
