"""A worker of a Citus cluster on this machine, found by its port: killed and started again as it was."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

import psutil
import psycopg

from .processes import wait_for


class Node:
    """Of host and port. pid: None where its server is not to be found on this machine, or is not ours to kill."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.pid = _listening(port)
        if self.pid is not None:
            server = psutil.Process(self.pid)
            self.command, self.directory = server.cmdline(), server.cwd()
            self.owner = server.uids().real, server.gids().real

    def kill(self) -> None:
        """kill -9 of all of it."""
        assert self.pid is not None
        server = psutil.Process(self.pid)
        family = [server, *server.children(recursive=True)]
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(family, timeout=30)

    def start(self) -> None:
        """Nothing where it runs."""
        if self._answers():
            return
        user, group = self.owner
        other = {} if os.geteuid() == user else {"user": user, "group": group, "extra_groups": []}
        log = open(f"{self.directory}/restarted.log", "ab")  # noqa: SIM115  # the server's from here on
        with log:
            subprocess.Popen(self.command, cwd=self.directory, stdout=log, stderr=log, start_new_session=True, **other)
        wait_for(self._answers, what=f"the node {self.host}:{self.port}")
        self.pid = _listening(self.port)

    def hang(self) -> None:
        """Every process of it stops where it is, its connections stay open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.pid is not None
        with suppress(psutil.NoSuchProcess):
            server = psutil.Process(self.pid)
            for each in [server, *server.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(number)

    def _answers(self) -> bool:
        try:
            psycopg.connect(host=self.host, port=self.port, user="nobody", dbname="postgres", connect_timeout=2).close()
        except psycopg.OperationalError as error:
            return "does not exist" in str(error) or "authentication" in str(error) or "pg_hba" in str(error)
        return True


def _listening(port: int) -> int | None:
    """The process that listens there: a server of PostgreSQL, not one of its children."""
    with suppress(psutil.AccessDenied):
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port and each.pid:
                return each.pid
    return None
