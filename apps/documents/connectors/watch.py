"""Which watched folders change, told by the kernel within moments.

A hint, and no promise: network file systems tell nothing, and a kernel whose queue is full forgets. The schedule of a
source is what finds everything.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from watchfiles import watch as changes

log = logging.getLogger(__name__)

LONGEST_MS = 10_000  # what changes without a pause is told of this often
POLL_SECONDS = 1.0  # how often we look whether the folders are still those that are watched
POLLING_MS = 5_000  # how often files are looked at where the kernel does not tell

Id = TypeVar("Id", bound=Hashable)
#: Device and inode of a folder and its real path; None where there is no folder.
_Identity = tuple[int, int, str] | None


def watch(
    paths: Callable[[], Mapping[Id, Path]],
    stop: threading.Event,
    *,
    debounce_ms: int = 500,
    poll_seconds: float = POLL_SECONDS,
) -> Iterator[set[Id]]:
    """The ids of the folders that changed, after `debounce_ms` of quiet or 10 s, until `stop` is set.

    1. The folders that are there are watched; those not watched before are told of, as they may have changed unseen.
    2. Changes are told of as they come. What is hidden is left out, as in a scan.
    3. Every `poll_seconds` we look which folders are wanted now (`paths`), and whether one appeared, vanished or became
       another (a mount, a new link): it is told of, and everything is watched anew.

    Where the kernel can watch no more folders, their files are polled, and the log says so. A folder that is not there
    is no error.
    """
    watched: dict[Id, _Identity] = {}
    untold: set[Id] = set()
    while not stop.is_set():
        current = _identities(paths())
        untold |= {key for key, identity in current.items() if identity != watched.get(key)}
        watched = current
        there = sorted({identity[2] for identity in current.values() if identity})
        for told in _events(there, stop, debounce_ms, poll_seconds):
            # The first answer comes when the watches are in place: what is told of then is scanned under their eyes.
            changed, untold = untold | _touched(watched, told), set()
            if changed:
                yield changed
            if _identities(paths()) != watched:
                break


def _events(there: list[str], stop: threading.Event, debounce_ms: int, poll_seconds: float) -> Iterator[set[str]]:
    """Paths that changed, and an empty set at once and at least every `poll_seconds`; ends when `stop` is set or the
    folders cannot be watched any more."""
    polling = forgiving = False
    while there:
        told = changes(
            *there,
            watch_filter=None,
            debounce=max(LONGEST_MS, debounce_ms),
            step=debounce_ms,
            stop_event=stop,
            rust_timeout=int(poll_seconds * 1000),
            yield_on_timeout=True,
            force_polling=polling,
            poll_delay_ms=POLLING_MS,
            ignore_permission_denied=forgiving,
        )
        try:
            for each in told:
                yield {path for _, path in each}
            return
        except FileNotFoundError:
            break  # gone since we looked
        except (OSError, RuntimeError) as error:  # watchfiles' own error is a RuntimeError
            if isinstance(error, PermissionError) and not forgiving:
                forgiving = True  # not from the start: watchfiles would then keep quiet about the limit too
            elif not polling:
                log.warning("folders cannot be watched, their files are polled instead: %s", error)
                polling = forgiving = True
            else:
                log.error("folders cannot be watched: %s", error)
                break
        finally:
            told.close()
    yield set()
    stop.wait(poll_seconds)


def _identities(paths: Mapping[Id, Path]) -> dict[Id, _Identity]:
    return {key: _identity(path) for key, path in paths.items()}


def _identity(path: Path) -> _Identity:
    try:
        real = os.path.realpath(path)
        status = os.stat(real)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, real) if os.path.isdir(real) else None


def _touched(watched: Mapping[Id, _Identity], paths: set[str]) -> set[Id]:
    return {key for key, identity in watched.items() if identity and any(_within(path, identity) for path in paths)}


def _within(path: str, identity: tuple[int, int, str]) -> bool:
    """Is this path one of the folder's that a scan would look at?"""
    folder = identity[2].rstrip("/") + "/"
    return path + "/" == folder or (path.startswith(folder) and "/." not in path[len(folder) - 1 :])
