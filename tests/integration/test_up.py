"""`manage.py up` where it cannot start: one clear line, and no server was started for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, free_port

SERVERS = ("DATABASE_URL", "REDIS_URL", "RAGSITE_DATA_DIR")


def up(data: Path, *arguments: str) -> str:
    """What it says before it gives up."""
    ended = subprocess.run(
        [sys.executable, "manage.py", "up", "--no-sample", "--data-dir", str(data), *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in SERVERS},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode != 0 and "Traceback" not in ended.stderr, ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


def no_server_was_started(data: Path) -> bool:
    return {path.name for path in data.iterdir()} <= {"secret_key", "logs", "run", "metrics"}


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = up(tmp_path / "data", "--port", str(port))
    assert f"port {port} is taken" in said and "--port" in said
    assert no_server_was_started(tmp_path / "data")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--port", "0"), "--port must be between 1 and 65535"),
        (("--port", "70000"), "--port must be between 1 and 65535"),
        (("--host", "203.0.113.9"), "not an address of this machine"),
    ],
)
def test_an_address_that_cannot_be_served_is_told(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    assert told in up(tmp_path / "data", *arguments)
    assert no_server_was_started(tmp_path / "data")


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = up(tmp_path / "file" / "data", "--port", str(free_port()))
    assert str(tmp_path / "file") in said
    assert (tmp_path / "file").read_text() == "in the way"
