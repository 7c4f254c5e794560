"""`manage.py up`: the whole product in one terminal - servers, tables, web, workers, beat - until Ctrl-C."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import os
import signal
import socket
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO, cast

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connections

from ragsite import embedded
from ragsite.embedded.paths import REPOSITORY
from ragsite.supervisor import Child, Supervisor

_TICK_S = 0.2
_CHECK_SERVERS_S = 1.0
_RETRY_SERVERS_S = 5.0
_STILL_WAITING_S = 60.0


class _Stop(BaseException):
    """The user or the system asked for the end. Not an Exception: no handler on the way may swallow it."""


class Command(BaseCommand):
    """Starts everything, keeps it running, stops everything."""

    help = "Start everything - database, Redis, web server, workers, beat - and keep it running until Ctrl-C."
    requires_system_checks = []  # `migrate` checks, once the database is there to be asked.

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Options; `--data-dir` is read by manage.py, before the settings."""
        parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: %(default)s)")
        parser.add_argument("--port", default=8000, type=int, help="port to serve on (default: %(default)s)")
        parser.add_argument("--data-dir", help="where everything is kept (default: $RAGSITE_DATA_DIR or .data)")
        parser.add_argument("--no-sample", action="store_true", help="load no sample collection on first start")
        parser.add_argument("--verbose", action="store_true", help="show the processes' output here too")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run until a signal. CommandError: already running, port taken, a server does not start."""
        self.host, self.port = options["host"], options["port"]
        self.root = embedded.data_dir()
        self.signals = 0
        self.stopping = threading.Event()
        echo = self._line if options["verbose"] else None
        self.supervisor = Supervisor(self._children(), say=self._line, echo=echo)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._on_signal)
        try:
            embedded.prepare()
            with self._only_one():
                check_port(self.host, self.port)
                try:
                    self._start(sample=not options["no_sample"])
                    self._supervise()
                except _Stop:
                    self._line("")
                finally:
                    self._shut_down()
        except embedded.EmbeddedError as error:
            raise CommandError(str(error))
        except _Stop:
            pass

    # --- The way up
    # -------------------------------------------------------------------------------------------

    def _start(self, *, sample: bool) -> None:
        from ragsite import first_start  # It reads the models, which --help must not need.

        if servers := embedded.managed():
            with self._step(" and ".join(servers)):
                embedded.attach()
            threading.Thread(target=self._keep_servers, name="servers", daemon=True).start()
        with self._step("tables"):
            try:
                call_command("migrate", verbosity=0, interactive=False)
                call_command("warm", verbosity=0)
            except OperationalError as error:
                raise CommandError(f"the database cannot be used: {str(error).strip().splitlines()[0]}")
        with self._step("first start"):
            made = first_start.run(cast(TextIO, self.stdout), sample=sample)
        _close_connections()
        for old in settings.METRICS_DIR.glob("*.db"):  # of processes that are gone: counters start anew
            old.unlink(missing_ok=True)
        with self._step("web server, workers, beat"):
            self.supervisor.start()
            self._wait_until_ready()
        self._line("")
        self._line(f"ragsite is ready:  http://{self._reachable_host()}:{self.port}/")
        if admin := made.get("admin"):
            self._line(f"  admin login      {admin['username']} / {admin['password']}   (shown once)")
        if key := made.get("api_key"):
            self._line(f"  API key          {key}   (shown once)")
        self._line(f"  logs             {embedded.log_dir(self.root)}")
        self._line("  Ctrl-C stops everything.")

    def _children(self) -> list[Child]:
        logs = embedded.log_dir(self.root)
        env = {
            "RAGSITE_DATA_DIR": str(self.root),
            "DJANGO_SETTINGS_MODULE": os.environ["DJANGO_SETTINGS_MODULE"],
            "PYTHONUNBUFFERED": "1",
        }
        # Workers do not gossip: the ledger, not the broker, says who works on what.
        worker = "worker --loglevel INFO --without-mingle --without-gossip --without-heartbeat"
        commands = {
            # Threads: preparing waits for subprocesses and the database.
            "main": f"celery -A ragsite {worker} -Q prepare -P threads -c 4 -n main@%h",
            # Apart: a first load keeps all of the threads above. Answering waits for the database and the LLM.
            "answer": f"celery -A ragsite {worker} -Q generate -P threads -c 8 -n answer@%h",
            # Apart: reading a site, and a first load, may take hours. Two threads more than syncs at once.
            "sync": f"celery -A ragsite {worker} -Q sync,default -P threads -c 6 -n sync@%h",
            # Solo: one model, one batch at a time, and no fork after the GPU has been touched.
            "embed": f"celery -A ragsite {worker} -Q embed -P solo -n embed@%h",
            "beat": "celery -A ragsite beat --loglevel INFO",
            "web": "uvicorn ragsite.asgi:application --no-access-log --timeout-graceful-shutdown 5",
        }
        extra = {"web": ["--host", self.host, "--port", str(self.port)]}
        return [
            Child(
                name=name,
                argv=[sys.executable, "-m", *command.split(), *extra.get(name, [])],
                log=logs / f"{name}.log",
                env=env,
                cwd=REPOSITORY,
                # No new requests, then no new ticks, then the work in hand.
                stage={"web": 2, "beat": 1}.get(name, 0),
            )
            for name, command in commands.items()
        ]

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        """Hold up.lock, which names the `up` of this data directory and its address."""
        with open(embedded.run_dir(self.root) / "up.lock", "a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise CommandError(f"already running on {self.root} ({lock.read().strip() or 'starting'})")
            lock.truncate(0)
            lock.write(f"process {os.getpid()}, http://{self._reachable_host()}:{self.port}/\n")
            lock.flush()
            yield

    def _wait_until_ready(self) -> None:
        """Tick until GET /readyz answers 200. Says every minute what it answers instead."""
        tell_at = time.monotonic() + _STILL_WAITING_S
        while (answer := self._readyz()) is not None:
            if time.monotonic() > tell_at:
                tell_at += _STILL_WAITING_S
                self._line(f"still waiting for /readyz: {answer}")
            self._pause()

    def _readyz(self) -> str | None:
        """None when ready, else what is wrong in a few words."""
        connection = http.client.HTTPConnection(self._reachable_host(bare=True), self.port, timeout=3)
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            body = response.read(500).decode("utf-8", "replace").strip()
            return None if response.status == 200 else f"{response.status} {body}"
        except (OSError, http.client.HTTPException) as error:
            return str(error) or type(error).__name__
        finally:
            connection.close()

    # --- Keeping it up
    # ----------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        while True:
            self._pause()

    def _pause(self) -> None:
        if self.signals:
            raise _Stop  # The exception of the handler can be lost, in a destructor for example.
        self.supervisor.tick()
        time.sleep(_TICK_S)

    def _keep_servers(self) -> None:
        """Beside the main loop, because the recovery of a crashed PostgreSQL may take minutes."""
        told, began = "", time.monotonic()
        while not self.stopping.wait(_RETRY_SERVERS_S if told else _CHECK_SERVERS_S):
            began = time.monotonic()
            try:
                for name in embedded.ensure_running(self.stopping.is_set):
                    self._line(f"{name} died, running again after {time.monotonic() - began:.1f} s")
                told = ""
            except Exception as error:
                if str(error) != told:
                    told = str(error)
                    self._line(f"{told}; tried again every {_RETRY_SERVERS_S:.0f} s")

    # --- The way down
    # -----------------------------------------------------------------------------------------

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.signals += 1
        if self.signals == 1:
            raise _Stop
        self.supervisor.kill()
        if self.signals > 2:
            os._exit(130)  # The kernel ends the children, the janitor the servers.

    def _shut_down(self) -> None:
        self.stopping.set()
        if self.supervisor.pids():
            with self._step("stopped web server, beat, workers"):
                self.supervisor.stop()
        began = time.monotonic()
        if embedded.stop():
            self._done(f"stopped {' and '.join(embedded.managed())}", began)

    # --- Telling
    # ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._done(name, began)

    def _done(self, name: str, began: float) -> None:
        self._line(f"{self._tick_mark()} {name} ({time.monotonic() - began:.1f} s)")

    def _tick_mark(self) -> str:
        encoding = getattr(self.stdout, "encoding", None) or "ascii"
        return "✓" if "✓".encode(encoding, "ignore") else "-"

    def _line(self, line: str) -> None:
        # The terminal may be gone (SIGHUP), the pipe closed: telling must never stop the doing.
        with contextlib.suppress(OSError, ValueError):
            self.stdout.write(line)
            self.stdout.flush()

    def _reachable_host(self, *, bare: bool = False) -> str:
        """The address to open in a browser when serving on every one; in brackets if IPv6, unless `bare`."""
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]" if ":" in host and not bare else host


def _close_connections() -> None:
    """Close this process's own: from here on it only watches, and a pool would complain of every restart."""
    for connection in connections.all(initialized_only=True):
        connection.close()
        if hasattr(connection, "close_pool"):
            connection.close_pool()


def check_port(host: str, port: int) -> None:
    """Try the address and let it go. CommandError in one line if nobody could serve there."""
    if not 0 < port < 65536:
        raise CommandError(f"--port must be between 1 and 65535; it is {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        raise CommandError(f"--host {host} is not an address of this machine")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(f"port {port} is taken on {host}: stop what uses it, or choose one with --port")
        if error.errno == errno.EADDRNOTAVAIL:
            raise CommandError(f"--host {host} is not an address of this machine")
        raise CommandError(f"cannot serve on {host}:{port}: {error.strerror}")
