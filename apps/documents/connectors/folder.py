"""The connector `folder`: the files of a folder on this machine.

Nothing is followed out of the folder. Every file is opened part by part from the operator's root, links not followed,
so that a link put in place of a folder while we look leads nowhere.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from mimetypes import guess_type
from pathlib import Path
from typing import Any, BinaryIO, cast

from apps.documents.connectors.patterns import Patterns, checked
from apps.documents.connectors.types import Fetched, Found, Lookup, SourceError, State

NAMES = {"path", "include", "exclude", "max_bytes", "watch"}
MAX_BYTES = 100 * 2**20
SPOOL_BYTES = 2**20  # a larger file is kept on disk while it is handed on
MAX_DEPTH = 128  # folders within folders: each holds a file descriptor while it is looked at
# A file written again within one tick of the kernel's clock (10 ms at most) would keep its time.
SETTLED_NS = 20_000_000

_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a pipe put in place of a file must not keep us waiting.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def check(settings: dict[str, Any], roots: Sequence[Path]) -> dict[str, Any]:
    """A user's settings, complete: path, include, exclude, max_bytes, watch. The patterns are those of `patterns.py`.

    path: absolute; the folder must be there, and be or lie in one of `roots` after its links are resolved, and not be
    hidden there. max_bytes: of one file. watch: is a sync wanted as soon as something changes? Raises
    SourceError("invalid" | "not_found") with a pointer to what is at fault.
    """
    if unknown := sorted(str(name) for name in settings.keys() - NAMES):
        raise SourceError("invalid", "A folder has no such setting.", pointer=f"/settings/{unknown[0]}")
    path = settings.get("path")
    if not isinstance(path, str) or not os.path.isabs(path) or "\0" in path or ".." in Path(path).parts:
        raise SourceError("invalid", 'An absolute path without ".." parts.', pointer="/settings/path")
    if not _Place.of(path, roots).is_there():
        raise SourceError("not_found", "There is no such folder.", pointer="/settings/path")
    max_bytes = settings.get("max_bytes", MAX_BYTES)
    if type(max_bytes) is not int or max_bytes < 1:
        raise SourceError("invalid", "A whole number of bytes, at least 1.", pointer="/settings/max_bytes")
    watch = settings.get("watch", True)
    if not isinstance(watch, bool):
        raise SourceError("invalid", "true or false.", pointer="/settings/watch")
    return {
        "path": path,
        "include": checked(settings, "include"),
        "exclude": checked(settings, "exclude"),
        "max_bytes": max_bytes,
        "watch": watch,
    }


def scan(settings: dict[str, Any], known: Lookup, *, roots: Sequence[Path]) -> Iterator[Found]:
    """The files of the folder, in the order of their keys. Left out: hidden files and folders, links to folders, links
    that lead out of the folder, pipes and devices.

    settings: as `check` returned them. A key is the path below the folder with "/", its state {"size": bytes,
    "mtime_ns": ns since 1970}. Raises SourceError: unreachable where the folder itself is not there (a disk that is not
    mounted has lost nothing), unreadable where a folder in it cannot be listed, invalid where it has left the roots.
    """
    place = _Place.of(settings["path"], roots)
    try:
        folder = place.open_folder(())
    except OSError as error:
        raise SourceError("unreachable", f"The folder cannot be listed: {error.strerror}.") from None
    patterns = Patterns(settings.get("include", ()), settings.get("exclude", ()))
    max_bytes = settings.get("max_bytes", MAX_BYTES)
    for path, parts, status in _files(place, folder, patterns, ()):
        # Text that cannot be stored must not become a key; such a file is told of, and never read.
        key = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        state = _state(status)
        fetch: Callable[[], Fetched] | None
        if key != path:
            fetch = _unnameable
        elif known.get(key) == state:
            fetch = None
        else:
            fetch = partial(_fetch, place, parts, path, max_bytes)
        yield Found(key, state, fetch)


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder, as the operator's root that it lies in and the parts of the path from there, without links."""

    root: str
    parts: tuple[str, ...]

    @classmethod
    def of(cls, path: str, roots: Sequence[Path]) -> _Place:
        """Raises SourceError("invalid") where it lies in none of `roots`, whether or not there is such a folder."""
        real = Path(os.path.realpath(path))
        for root in roots:
            real_root = Path(os.path.realpath(root))
            if real.is_relative_to(real_root):
                parts = real.relative_to(real_root).parts
                if not any(part.startswith(".") for part in parts):
                    return cls(str(real_root), parts)
        detail = "The folder must lie in one of those that the operator has opened for sources, and not be hidden."
        raise SourceError("invalid", detail, pointer="/settings/path")

    @property
    def path(self) -> str:
        return os.path.join(self.root, *self.parts)

    def is_there(self) -> bool:
        return os.path.isdir(self.path)

    def open_folder(self, parts: Sequence[str]) -> int:
        """A descriptor of the folder at these parts below this one, for the caller to close. Raises OSError."""
        descriptor = os.open(self.root, _LISTED & ~os.O_NOFOLLOW)
        for part in (*self.parts, *parts):
            above = descriptor
            try:
                descriptor = os.open(part, _LISTED, dir_fd=above)
            finally:
                os.close(above)
        return descriptor

    def open_file(self, parts: Sequence[str]) -> BinaryIO:
        """The file at these parts below this folder. Raises OSError."""
        folder = self.open_folder(parts[:-1])
        try:
            return os.fdopen(os.open(parts[-1], _READ, dir_fd=folder), "rb", buffering=0)
        finally:
            os.close(folder)

    def linked(self, path: str) -> tuple[str, ...]:
        """Where the link at `path` below this folder leads: parts below this folder, none where that is elsewhere."""
        real = Path(os.path.realpath(os.path.join(self.path, path)))
        if not real.is_relative_to(self.path):
            return ()
        parts = real.relative_to(self.path).parts
        return () if any(part.startswith(".") for part in parts) else parts


def _files(
    place: _Place, folder: int, patterns: Patterns, above: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, ...], os.stat_result]]:
    """The wanted files below the open folder, which is closed: path, parts to open it by, status."""
    prefix = "".join(f"{part}/" for part in above)
    try:
        for name in _names(folder, prefix):
            path = prefix + name
            if not name.endswith("/"):
                if patterns.wants(path) and (found := _status(place, folder, above, name)):
                    yield path, *found
            elif not patterns.prunes(path[:-1]):
                below = (*above, name[:-1])
                if len(below) > MAX_DEPTH:
                    raise SourceError("unreadable", f"Folders are nested more than {MAX_DEPTH} deep.")
                try:
                    opened = os.open(name[:-1], _LISTED, dir_fd=folder)
                except (FileNotFoundError, NotADirectoryError):
                    continue  # removed or replaced since it was listed
                except OSError as error:
                    raise _unlistable(path, error) from None
                yield from _files(place, opened, patterns, below)
    finally:
        os.close(folder)


def _names(folder: int, prefix: str) -> list[str]:
    """What is not hidden in the open folder, folders with a "/", which puts whole paths into the order of their text.

    Names alone are held, and files looked at one by one: a folder of a million files needs about 100 MB.
    """
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    names.append(f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name)
    except OSError as error:
        raise _unlistable(prefix, error) from None
    names.sort()
    return names


def _status(
    place: _Place, folder: int, above: tuple[str, ...], name: str
) -> tuple[tuple[str, ...], os.stat_result] | None:
    """The parts to open the file by and its status; None for what is left out or has just been removed."""
    parts = (*above, name)
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            parts = place.linked("/".join(parts))
            if not parts:
                return None
            status = os.stat(os.path.join(place.path, *parts), follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unlistable("/".join(above), error) from None
    return (parts, status) if stat.S_ISREG(status.st_mode) else None


def _unlistable(path: str, error: OSError) -> SourceError:
    shown = path.encode("utf-8", "backslashreplace").decode().rstrip("/")
    return SourceError("unreadable", f"The folder {shown!r} cannot be listed: {error.strerror}.")


def _state(status: os.stat_result) -> State:
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _unnameable() -> Fetched:
    raise SourceError("unreadable", "The file's name is not UTF-8.")


def _fetch(place: _Place, parts: tuple[str, ...], path: str, max_bytes: int) -> Fetched:
    """The file as it was at one moment: read again where it changed meanwhile, once."""
    try:
        read = _read(place, parts, max_bytes) or _read(place, parts, max_bytes)
    except FileNotFoundError:
        raise SourceError("not_found", "The file has been removed.") from None
    except OSError as error:
        raise SourceError("unreadable", f"The file cannot be read: {error.strerror}.") from None
    if read is None:
        raise SourceError("unreadable", "The file changed while it was read, twice.")
    content, status = read
    name = path.rpartition("/")[2]
    return Fetched(
        content=content,
        state=_state(status),
        media_type=guess_type(name)[0] or "",
        filename=name,
        modified=_time(status),
    )


def _read(place: _Place, parts: tuple[str, ...], max_bytes: int) -> tuple[BinaryIO, os.stat_result] | None:
    """A copy of the file and its status, None where it changed while it was read. Raises OSError, SourceError."""
    with place.open_file(parts) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise SourceError("unreadable", "This is no file any more.")
        if before.st_size > max_bytes:
            raise SourceError("too_large", f"The file is larger than {max_bytes} bytes.")
        if 0 <= time.time_ns() - before.st_mtime_ns < SETTLED_NS:
            time.sleep(SETTLED_NS / 1e9)
        copy = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES))  # noqa: SIM115 - handed on
        try:
            size = 0
            while size <= before.st_size and (piece := file.read(min(SPOOL_BYTES, before.st_size + 1 - size))):
                size += copy.write(piece)
            if size != before.st_size or _state(os.fstat(file.fileno())) != _state(before):
                copy.close()
                return None
            copy.seek(0)
        except BaseException:
            copy.close()
            raise
        return copy, before


def _time(status: os.stat_result) -> datetime | None:
    try:
        return datetime.fromtimestamp(status.st_mtime, UTC)
    except (ValueError, OverflowError, OSError):
        return None  # a file may say that it is from the year 200,000
