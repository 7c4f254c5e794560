"""`manage.py up` on an empty data directory until the sample collection gives its first cited answer."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.support.processes import ROOT, free_port

SECONDS = 300


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    directory = tempfile.mkdtemp(prefix="ragsite-first-")
    environment = {
        name: value for name, value in os.environ.items() if name not in {"RAGSITE_DATA_DIR", "EMBEDDING_CACHE_DIR"}
    }
    port = free_port()
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--port", str(port), "--data-dir", directory],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        key, ready = "", 0.0
        while not key:
            line = process.stdout.readline()
            assert line, "up ended before it printed a key"
            found = re.search(r"\brs_[\w-]{20,}", line)
            key = found.group() if found else ""
        ready = time.perf_counter() - started
        question = {"question": "What happens to accepted documents when Redis loses everything?"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": key}, timeout=60) as client:
            while True:
                answer = client.post("/api/v1/answers", json=question)
                seconds = time.perf_counter() - started
                if answer.status_code == 200 and answer.json()["citations"]:
                    break
                assert seconds < SECONDS, answer.text
                time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        shutil.rmtree(directory, ignore_errors=True)
    yield ("empty directory to first cited answer", "<= 60 s", f"{seconds:.1f} s (key printed after {ready:.1f} s)")
