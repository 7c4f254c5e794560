"""Watching folders, with the kernel's real events."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from apps.documents.connectors.watch import watch
from tests.support.processes import ROOT


class Watched:
    """`watch` in a thread; `next` waits for what it tells."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self.stop = threading.Event()
        self._told: queue.Queue[set[str]] = queue.Queue()
        self.thread = threading.Thread(target=self._run, args=(paths,), daemon=True)
        self.thread.start()

    def _run(self, paths: dict[str, Path]) -> None:
        for told in watch(lambda: paths, self.stop, debounce_ms=100, poll_seconds=0.2):
            self._told.put(told)

    def next(self, seconds: float = 10) -> set[str]:
        return self._told.get(timeout=seconds)

    def quiet(self, seconds: float = 1) -> bool:
        try:
            return not self._told.get(timeout=seconds)
        except queue.Empty:
            return True


@contextmanager
def watching(**paths: Path) -> Iterator[Watched]:
    watched = Watched(paths)
    try:
        yield watched
    finally:
        watched.stop.set()
        watched.thread.join(10)
        assert not watched.thread.is_alive()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
    return tmp_path / "a", tmp_path / "b"


def test_the_folder_that_changed_is_told_of_and_no_other(folders: tuple[Path, Path]) -> None:
    a, b = folders
    (b / "old.md").write_text("x")
    with watching(a=a, b=b) as watched:
        assert watched.next() == {"a", "b"}  # may have changed before they were watched
        (a / "deep/new.md").write_text("x")
        assert watched.next() == {"a"}
        (b / "old.md").write_text("y")
        assert watched.next() == {"b"}
        (b / "old.md").unlink()
        assert watched.next() == {"b"}
        (a / "deep/new.md").rename(b / "moved.md")
        assert watched.next() == {"a", "b"}
        assert watched.quiet()


def test_many_changes_are_told_of_once(folders: tuple[Path, Path]) -> None:
    a, b = folders
    with watching(a=a, b=b) as watched:
        watched.next()
        for number in range(300):
            (a / f"{number}.md").write_text("x")
        assert watched.next() == {"a"}
        assert watched.quiet()


def test_files_in_a_new_folder_are_told_of(folders: tuple[Path, Path]) -> None:
    a, _ = folders
    with watching(a=a) as watched:
        watched.next()
        (a / "new/newer").mkdir(parents=True)
        assert watched.next() == {"a"}
        (a / "new/newer/file.md").write_text("x")
        assert watched.next() == {"a"}


def test_hidden_files_and_reading_are_not_told_of(folders: tuple[Path, Path]) -> None:
    a, _ = folders
    (a / "file.md").write_text("x")
    (a / ".git").mkdir()
    with watching(a=a) as watched:
        watched.next()
        (a / ".git/index").write_text("x")
        (a / ".file.md.swp").write_text("x")
        (a / "file.md").read_text()
        list(os.scandir(a))
        assert watched.quiet()


def test_a_folder_within_another_is_told_of_with_it(folders: tuple[Path, Path]) -> None:
    a, _ = folders
    with watching(outer=a, inner=a / "deep") as watched:
        watched.next()
        (a / "deep/new.md").write_text("x")
        assert watched.next() == {"outer", "inner"}
        (a / "new.md").write_text("x")
        assert watched.next() == {"outer"}


def test_a_folder_that_appears_vanishes_and_comes_back_is_watched_again(tmp_path: Path) -> None:
    late = tmp_path / "late"
    with watching(late=late) as watched:
        assert watched.quiet(0.5)
        late.mkdir()
        assert watched.next() == {"late"}
        (late / "a.md").write_text("x")
        assert watched.next() == {"late"}
        shutil.rmtree(late)
        assert watched.next() == {"late"}
        while not watched.quiet():
            pass
        late.mkdir()
        assert watched.next() == {"late"}
        (late / "b.md").write_text("x")
        assert watched.next() == {"late"}


def test_a_folder_replaced_by_another_or_by_a_link_is_watched_anew(folders: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = folders
    link = tmp_path / "link"
    link.symlink_to(a)
    with watching(link=link) as watched:
        watched.next()
        (tmp_path / "next").symlink_to(b)
        (tmp_path / "next").rename(link)
        assert watched.next() == {"link"}
        (b / "new.md").write_text("x")
        assert watched.next() == {"link"}
        (a / "new.md").write_text("x")
        assert watched.quiet()


def test_it_stops_soon_when_it_is_asked_to(folders: tuple[Path, Path]) -> None:
    with watching(a=folders[0]) as watched:
        watched.next()
        started = time.monotonic()
        watched.stop.set()
        watched.thread.join(10)
        assert time.monotonic() - started < 2


LIMITED = """
import logging, pathlib, sys, threading
logging.basicConfig(level=logging.WARNING)
from apps.documents.connectors import watch
watch.POLLING_MS = 200
folder, stop = pathlib.Path(sys.argv[1]), threading.Event()
for number, told in enumerate(watch.watch(lambda: {"a": folder}, stop, debounce_ms=100, poll_seconds=0.2)):
    print(number, sorted(told), flush=True)
    if number == 0:
        (folder / "7/new.md").write_text("x")
    else:
        break
"""


@pytest.mark.parametrize(("limit", "most"), [("max_inotify_watches", 10), ("max_inotify_instances", 0)])
def test_where_the_kernel_watches_no_more_files_are_polled_and_the_log_says_so(
    tmp_path: Path, limit: str, most: int
) -> None:
    for number in range(30):
        (tmp_path / f"{number}").mkdir()
    own_limits = ["unshare", "-Ur", "sh", "-c", f'echo {most} > /proc/sys/user/{limit} && exec "$@"', "sh"]
    try:
        subprocess.run([*own_limits, "true"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("this machine does not let us lower the limit for a process of our own")
    done = subprocess.run(
        [*own_limits, sys.executable, "-c", LIMITED, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.split("\n")[:2] == ["0 ['a']", "1 ['a']"], done.stderr
    assert "polled instead" in done.stderr
