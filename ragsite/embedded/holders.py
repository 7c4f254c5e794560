"""Who uses the servers: the locks of `ragsite.embedded`, and the janitor that cleans up after the killed."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from . import paths, system
from .paths import EmbeddedError
from .postgres import Postgres
from .redis import Redis

Server = Postgres | Redis

# What this process holds: the locks' file descriptors (holders, watched) by data directory. Emptied in a
# forked child, which shares the parent's lock through the inherited descriptor and must neither count as a
# holder nor give the lock up.
_held: dict[Path, tuple[int, int]] = {}
_servers: dict[Path, list[Server]] = {}


def attach() -> None:
    """Make sure that the servers of `data_dir()` run, and keep them running for the life of this process.

    Does nothing for a server whose URL is set in the environment, and nothing when called again.
    Raises EmbeddedError: directory unwritable, wheel missing, server does not start.
    """
    root = paths.data_dir()
    servers = _wanted(root)
    if not servers or root in _held:
        return
    prepare()
    with _file_lock(_start(root)):
        held = (_open(_holders(root)), _open(_watched(root)))
        for lock in held:
            fcntl.flock(lock, fcntl.LOCK_SH)  # Waits for a moment at most: see `stop` and `janitor`.
        _held[root] = held
        atexit.register(stop, root)
        _start_janitor(root)
        _start_dead(servers, lambda: False)


def managed() -> list[str]:
    """The names of the servers that `attach` is about: those without a URL in the environment."""
    return [server.name for server in _wanted(paths.data_dir())]


def prepare() -> None:
    """Make the data directory, each part with the narrowest mode that works. Raises EmbeddedError."""
    root = paths.data_dir()
    system.make_dir(root)
    # Without a server of ours nobody else needs to get in.
    user = system.service_user(root / "postgres") if _wanted(root) else None
    if user is not None:
        system.let_through(root / "postgres", user)
        system.make_dir(paths.socket_dir(root), user, 0o700)
    for directory in (paths.run_dir(root), paths.log_dir(root)):
        system.make_dir(directory, user, 0o700)


def ensure_running(cancelled: Callable[[], bool] = lambda: False) -> list[str]:
    """Start those of the servers that died; the names of those started. Cheap when all is well (< 1 ms).

    For a supervisor that called `attach`. May take minutes while PostgreSQL recovers from a crash; returns
    soon after `cancelled()` turns true. Raises EmbeddedError if a server does not start.
    """
    root = paths.data_dir()
    servers = _wanted(root)
    for server in servers:
        system.bound_log(server.log)
    if all(server.alive() for server in servers):
        return []
    with _file_lock(_start(root)):
        return _start_dead(servers, cancelled)


def stop(root: Path | None = None) -> bool:
    """Let go of the servers; stop them if nobody else holds them. Whether they were stopped by this call."""
    root = root or paths.data_dir()
    if root not in _held:
        return False
    with _file_lock(_start(root)):
        lock, watched = _held.pop(root)
        try:
            return _stop_if_last(root, lock)
        finally:
            os.close(lock)
            os.close(watched)


def janitor(root: Path) -> None:
    """Wait until nobody holds the servers of `root`, stop those that still run, and end.

    Makes no file and ends when one is missing: the data directory may have been removed under it.
    """
    with contextlib.suppress(OSError, EmbeddedError), _file_lock(_janitor(root), wait=False, make=False):
        while True:
            with _file_lock(_watched(root), make=False):
                pass
            # The start lock comes first, as everywhere; someone may have come between the two.
            with _file_lock(_start(root), make=False):
                lock = _open(_holders(root), make=False)
                try:
                    if _stop_if_last(root, lock):
                        return
                finally:
                    os.close(lock)


def _wanted(root: Path) -> list[Server]:
    """The servers that are this process's business: those without a URL in the environment."""
    if root not in _servers:
        _servers[root] = [Postgres(root), Redis(root)]
    variables = {"PostgreSQL": "DATABASE_URL", "Redis": "REDIS_URL"}
    return [one for one in _servers[root] if not os.environ.get(variables[one.name], "").strip()]


def _start_dead(servers: list[Server], cancelled: Callable[[], bool]) -> list[str]:
    started = []
    for server in servers:
        if not server.alive() and not cancelled():
            server.start(cancelled)
            started.append(server.name)
    return started


def _stop_if_last(root: Path, lock: int) -> bool:
    """Under the start lock: make the shared lock exclusive; if that succeeds nobody else is there, so stop
    all.

    Every server is stopped, also one whose URL is set in *this* process: another holder may have started it.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    for server in _servers.get(root) or [Postgres(root), Redis(root)]:
        server.stop()
    return True


def _start_janitor(root: Path) -> None:
    try:
        with _file_lock(_janitor(root), wait=False):
            pass
    except BlockingIOError:
        return
    # In its own session and away from this process's directory, streams and environment: it outlives them
    # all.
    subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("janitor.py")), str(root)],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _holders(root: Path) -> Path:
    return paths.run_dir(root) / "holders.lock"


def _watched(root: Path) -> Path:
    return paths.run_dir(root) / "watched.lock"


def _start(root: Path) -> Path:
    return paths.run_dir(root) / "start.lock"


def _janitor(root: Path) -> Path:
    return paths.run_dir(root) / "janitor.lock"


@contextlib.contextmanager
def _file_lock(path: Path, *, wait: bool = True, make: bool = True) -> Iterator[None]:
    """An exclusive lock on `path`. With wait=False BlockingIOError if another process has it."""
    descriptor = _open(path, make=make)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _open(path: Path, *, make: bool = True) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600)
    except OSError as error:
        raise EmbeddedError(f"{path} cannot be opened ({error.strerror}): choose another RAGSITE_DATA_DIR")
    system.give_to_owner(descriptor, path.parent)
    return descriptor


def _forget_in_child() -> None:
    for lock in (lock for locks in _held.values() for lock in locks):
        os.close(lock)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
