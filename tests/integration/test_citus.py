"""The same invariants on a real Citus cluster: set CITUS_DATABASE_URL to its owner's URL (docs/howto/citus.md).

Settings are read once per process, so each file runs in a pytest of its own whose DATABASE_URL is the cluster's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CLUSTER = os.environ.get("CITUS_DATABASE_URL", "")

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
            *("test_search_batch.py", "test_snapshot.py", "test_spaces.py", "test_second_space.py"),
            *("test_partitions.py", "test_index_care.py", "test_recall_monitor.py", "test_drift.py"),
            *("cluster_nodes_away.py", "cluster_shards.py"),
            "test_bulk.py::test_bad_lines_fail_alone",
            "test_load.py::test_a_folder_becomes_searchable_and_again_costs_nothing",
        ),
    ],
)
def test_the_invariants_hold_on_a_cluster(name: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(HERE / name)],
        env=os.environ | {"DATABASE_URL": CLUSTER},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout[-8_000:] + run.stderr[-2_000:]
