"""`python -m benchmarks [NAME ...]`: run benchmarks against the product's own processes, print one table.

Everything runs in a directory of its own that is removed afterwards, unless `--keep DIR` names one; DATABASE_URL and
REDIS_URL are honoured.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

NAMES = (
    "search",
    "request_path",
    "refine",
    "write_through",
    "ingest",
    "load",
    "edit",
    "formats",
    "sync",
    "memory",
    "flat",
    "replicas",
    "first_answer",
)
#: They need an environment of their own, or take long.
ON_REQUEST = (
    "answers",
    "beside",
    "beside_search",
    "capacity",
    "citus",
    "formats_limits",
    "generation",
    "model_change",
    "partitions",
    "retrieval",
)
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (all by default); {', '.join(ON_REQUEST)}"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="measure in DIR, and leave there what was loaded")
    arguments = parser.parse_args()
    chosen = arguments.names or list(NAMES)
    unknown = sorted(set(chosen) - {*NAMES, *ON_REQUEST})
    if unknown:
        sys.exit(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES + ON_REQUEST)}")
    data = arguments.keep.absolute() if arguments.keep else Path(tempfile.mkdtemp(prefix="ragsite-bench-"))
    os.environ["RAGSITE_DATA_DIR"] = str(data)
    os.environ["DJANGO_SETTINGS_MODULE"] = "ragsite.settings"
    os.environ.setdefault("EMBEDDING_CACHE_DIR", str(ROOT / ".data" / "models"))
    from ragsite import embedded

    embedded.attach()
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    cores = os.cpu_count()
    print(f"{time.strftime('%Y-%m-%d')} · {platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| benchmark | figure | asked for | measured |\n|---|---|---|---|")
    try:
        for name in chosen:
            for figure, asked, measured in importlib.import_module(f"benchmarks.{name}").run(data):
                print(f"| {name} | {figure} | {asked} | {measured} |", flush=True)
    finally:
        embedded.stop()
        if not arguments.keep:
            shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main()
