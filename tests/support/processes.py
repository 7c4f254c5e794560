"""Real processes for tests: the web server, Celery workers, beat."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], Any], *, seconds: float = 60, what: str = "condition", every: float = 0.05) -> Any:
    """Poll until the condition is truthy, and return it. Raises AssertionError with `what` after a while."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(every)


class Process:
    """A child process of this repository with its output in a log file."""

    def __init__(self, data: Path, name: str, *argv: str, **environment: str) -> None:
        self.log = data / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *argv],
                cwd=ROOT,
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """kill -9 of the process and all that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()


class Server:
    """uvicorn, ready to answer; `url` is its base."""

    def __init__(self, data: Path, *, port: int = 0, **environment: str) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        argv = ("uvicorn", "ragsite.asgi:application", "--port", str(self.port), "--no-access-log")
        self.running = Process(data, "web", *argv, **environment)

    def __enter__(self) -> Server:
        try:
            wait_for(self._ready, seconds=60, what=f"the web server; see {self.running.log}")
        except AssertionError:
            self.running.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.running.stop()

    def client(self, key: str) -> httpx.Client:
        """Requests with an API key."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False


def worker(
    data: Path, *queues: str, name: str = "worker", pool: str = "solo", threads: int = 2, **environment: str
) -> Process:
    """One Celery worker process."""
    argv = (
        "celery",
        "-A",
        "ragsite",
        "worker",
        "-Q",
        ",".join(queues),
        "-P",
        pool,
        "-c",
        str(threads),
        "-n",
        f"{name}@%h",
    )
    return Process(data, name, *argv, "--without-mingle", "--without-gossip", "-l", "INFO", **environment)


class Workers:
    """A worker for preparing, one for embedding, one for syncing and what beat asks for; and beat."""

    def __init__(self, data: Path) -> None:
        beat = ("celery", "-A", "ragsite", "beat", "--pidfile=")
        self.processes = [
            worker(data, "prepare", "generate", name="main", pool="threads"),
            worker(data, "embed", name="embed"),
            worker(data, "sync", "default", name="sync", pool="threads", threads=6),
            Process(data, "beat", *beat),
        ]

    def __enter__(self) -> Workers:
        return self

    def ready(self) -> bool:
        """Have the workers connected?"""
        return all(b"ready." in process.log.read_bytes() for process in self.processes[:3])

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.process.terminate()
        for process in self.processes:
            process.stop()
