"""The connector `folder`, with real files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from apps.documents.connectors import folder
from apps.documents.connectors.types import Fetched, Found, SourceError, State


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def scan(root: Path, known: Mapping[str, State] | None = None, **settings: Any) -> list[Found]:
    checked = folder.check({"path": str(root), **settings}, [root])
    return list(folder.scan(checked, known or {}, roots=[root]))


def keys(found: list[Found]) -> list[str]:
    return [each.key for each in found]


def fetch(found: Found) -> Fetched:
    assert found.fetch is not None
    return found.fetch()


def known(found: list[Found]) -> dict[str, State]:
    """What a sync remembers, having read everything."""
    remembered = {}
    for each in found:
        fetched = fetch(each)
        fetched.content.close()
        remembered[each.key] = fetched.state
    return remembered


def changed(found: list[Found]) -> list[str]:
    return [each.key for each in found if each.fetch]


def put(path: Path, text: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_file_is_found_in_the_order_of_its_key_and_can_be_read(root: Path) -> None:
    for name in ("b.md", "a/z.txt", "a.txt", "a-b.txt", "a/b/c.txt", "ü é.md"):
        put(root / name, name)
    found = scan(root)
    assert keys(found) == sorted(["b.md", "a/z.txt", "a.txt", "a-b.txt", "a/b/c.txt", "ü é.md"])
    for each in found:
        with fetch(each).content as content:
            assert content.read().decode() == each.key
    read = fetch(found[keys(found).index("b.md")])
    assert (read.media_type, read.filename) == ("text/markdown", "b.md")
    assert read.modified is not None and abs(read.modified.timestamp() - time.time()) < 60
    assert read.state == {"size": 4, "mtime_ns": (root / "b.md").stat().st_mtime_ns}


def test_what_is_unchanged_is_not_read_again(root: Path) -> None:
    put(root / "a.md"), put(root / "b/c.md")
    again = scan(root, known(scan(root)))
    assert keys(again) == ["a.md", "b/c.md"] and not changed(again)


def test_new_changed_renamed_and_removed_files_are_told_apart(root: Path) -> None:
    for name in ("same", "changed", "renamed", "removed"):
        put(root / name)
    before = known(scan(root))
    put(root / "new"), put(root / "changed", "longer text")
    (root / "renamed").rename(root / "moved")
    (root / "removed").unlink()
    found = scan(root, before)
    assert keys(found) == ["changed", "moved", "new", "same"]
    assert changed(found) == ["changed", "moved", "new"]


def test_a_file_written_again_at_the_same_size_is_found_changed_even_at_once(root: Path) -> None:
    path = put(root / "a.md", "0000")
    for number in range(1, 20):
        before = known(scan(root))
        path.write_text(f"{number:04}")
        found = scan(root, before)
        assert changed(found) == ["a.md"]
        with fetch(found[0]).content as content:
            assert content.read() == f"{number:04}".encode()


def test_a_touched_file_is_read_again(root: Path) -> None:
    path = put(root / "a.md")
    before = known(scan(root))
    os.utime(path, ns=(1, 1))
    assert changed(scan(root, before)) == ["a.md"]


def test_hidden_files_links_to_folders_pipes_and_links_out_are_left_out(root: Path, tmp_path: Path) -> None:
    put(tmp_path / "secret.md"), put(root / ".env"), put(root / ".git/config"), put(root / "a/b.md")
    (root / "out.md").symlink_to(tmp_path / "secret.md")
    (root / "hidden.md").symlink_to(root / ".env")
    (root / "folder").symlink_to(root / "a")
    (root / "nowhere.md").symlink_to(root / "missing")
    (root / "loop.md").symlink_to(root / "loop.md")
    os.mkfifo(root / "pipe")
    (root / "in.md").symlink_to(root / "a/b.md")
    found = scan(root)
    assert keys(found) == ["a/b.md", "in.md"]
    with fetch(found[1]).content as content:
        assert content.read() == b"text"


def test_a_link_put_in_place_of_a_folder_or_file_after_the_scan_leads_nowhere(root: Path, tmp_path: Path) -> None:
    put(tmp_path / "secret/b.md", "secret"), put(root / "a/b.md"), put(root / "c.md"), put(root / "d.md")
    found = scan(root)
    (root / "a").rename(tmp_path / "aside")
    (root / "a").symlink_to(tmp_path / "secret")
    (root / "c.md").unlink()
    (root / "c.md").symlink_to(tmp_path / "secret/b.md")
    (root / "d.md").unlink()
    os.mkfifo(root / "d.md")
    for each in found:
        with pytest.raises(SourceError, match="unreadable"):
            fetch(each)


def test_patterns_choose_and_an_excluded_folder_is_not_even_listed(root: Path) -> None:
    for name in ("a.md", "a.txt", "docs/b.md", "docs/old/c.md", "node_modules/d.md", "x/node_modules/e.md"):
        put(root / name)
    assert keys(scan(root, include=["*.md"], exclude=["**/node_modules/**"])) == ["a.md", "docs/b.md", "docs/old/c.md"]
    assert keys(scan(root, include=["docs/*"])) == ["docs/b.md"]
    assert keys(scan(root, include=["docs/"], exclude=["docs/old/"])) == ["docs/b.md"]
    assert keys(scan(root, include=["**/old/*", "[a].txt"])) == ["a.txt", "docs/old/c.md"]


def test_a_file_that_is_too_large_or_gone_fails_alone(root: Path) -> None:
    put(root / "large", "x" * 11), put(root / "gone"), put(root / "good")
    found = {each.key: each for each in scan(root, max_bytes=10)}
    (root / "gone").unlink()
    with pytest.raises(SourceError, match="too_large"):
        fetch(found["large"])
    with pytest.raises(SourceError, match="not_found"):
        fetch(found["gone"])
    fetch(found["good"]).content.close()


def test_a_name_that_is_not_utf8_is_told_of_and_never_read(root: Path) -> None:
    (root / os.fsdecode(b"caf\xe9.txt")).write_text("text")
    found = scan(root)
    assert keys(found) == ["caf\\xe9.txt"]
    with pytest.raises(SourceError, match="not UTF-8"):
        fetch(found[0])


def test_a_file_that_grows_all_the_time_is_not_taken_for_whole(root: Path) -> None:
    path, stop = put(root / "log", "x" * 4_000_000), threading.Event()
    found = scan(root)

    def grow() -> None:
        with path.open("a", buffering=1) as file:
            while not stop.is_set():
                file.write("more\n")

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        with pytest.raises(SourceError, match="changed while"):
            fetch(found[0])
    finally:
        stop.set()
        thread.join()
    with fetch(found[0]).content as content:
        assert len(content.read()) == path.stat().st_size


def test_a_missing_folder_is_unreachable_and_an_empty_one_has_lost_its_files(root: Path) -> None:
    put(root / "docs/a.md")
    before = known(scan(root / "docs"))
    checked = folder.check({"path": str(root / "docs")}, [root])
    (root / "docs").rename(root / "away")
    with pytest.raises(SourceError, match="unreachable"):
        list(folder.scan(checked, before, roots=[root]))
    (root / "docs").mkdir()
    assert list(folder.scan(checked, before, roots=[root])) == []


def test_a_folder_that_leaves_the_roots_is_not_read_any_more(root: Path, tmp_path: Path) -> None:
    put(root / "docs/a.md"), put(tmp_path / "secret/b.md")
    checked = folder.check({"path": str(root / "docs")}, [root])
    (root / "docs").rename(root / "away")
    (root / "docs").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match="operator"):
        list(folder.scan(checked, {}, roots=[root]))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_fails_alone_and_an_unreadable_folder_ends_the_scan(root: Path) -> None:
    put(root / "a.md").chmod(0)
    found = scan(root)
    with pytest.raises(SourceError, match="unreadable"):
        fetch(found[0])
    put(root / "b/c.md")
    (root / "b").chmod(0)
    try:
        with pytest.raises(SourceError, match="unreadable: The folder 'b'"):
            scan(root)
        assert keys(scan(root, exclude=["b/"])) == ["a.md"]
    finally:
        (root / "b").chmod(0o700)


def test_folders_nested_without_end_stop_the_scan(root: Path) -> None:
    path = root
    for _ in range(folder.MAX_DEPTH + 1):
        path = path / "d"
    put(path / "a.md")
    with pytest.raises(SourceError, match="nested"):
        scan(root)


def test_ten_thousand_unchanged_files_take_a_moment_and_leave_no_descriptors(root: Path) -> None:
    for number in range(100):
        (root / f"{number:03}").mkdir()
        for each in range(100):
            (root / f"{number:03}/{each:03}.txt").touch()
    before = {each.key: each.state for each in scan(root)}
    descriptors = len(os.listdir("/proc/self/fd"))
    started = time.monotonic()
    found = scan(root, before)
    assert time.monotonic() - started < 5
    assert len(found) == 10_000 and not changed(found)
    half = folder.scan(folder.check({"path": str(root)}, [root]), before, roots=[root])
    next(half)
    del half
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({}, "/settings/path"),
        ({"path": 3}, "/settings/path"),
        ({"path": "docs"}, "/settings/path"),
        ({"path": "/etc"}, "/settings/path"),
        ({"path": "ROOT/../secret"}, "/settings/path"),
        ({"path": "ROOT/out"}, "/settings/path"),
        ({"path": "ROOT/missing"}, "/settings/path"),
        ({"path": "ROOT/file"}, "/settings/path"),
        ({"path": "ROOT\0"}, "/settings/path"),
        ({"path": "ROOT", "includes": []}, "/settings/includes"),
        ({"path": "ROOT", "include": "*.md"}, "/settings/include"),
        ({"path": "ROOT", "include": ["*.md", "../*"]}, "/settings/include/1"),
        ({"path": "ROOT", "exclude": ["/etc/*"]}, "/settings/exclude/0"),
        ({"path": "ROOT", "exclude": [1]}, "/settings/exclude/0"),
        ({"path": "ROOT", "max_bytes": 0}, "/settings/max_bytes"),
        ({"path": "ROOT", "max_bytes": True}, "/settings/max_bytes"),
    ],
)
def test_settings_at_fault_are_pointed_at(root: Path, tmp_path: Path, settings: dict[str, Any], pointer: str) -> None:
    put(tmp_path / "secret/a.md"), put(root / "file")
    (root / "out").symlink_to(tmp_path / "secret")
    if isinstance(settings.get("path"), str):
        settings = {**settings, "path": settings["path"].replace("ROOT", str(root))}
    with pytest.raises(SourceError) as caught:
        folder.check(settings, [root])
    assert (caught.value.code in {"invalid", "not_found"}, caught.value.pointer) == (True, pointer)


def test_a_folder_outside_the_roots_is_refused_alike_whether_it_is_there_or_not(root: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    said = set()
    for name in ("there", "missing"):
        with pytest.raises(SourceError) as caught:
            folder.check({"path": str(tmp_path / name)}, [root])
        said.add(str(caught.value))
    assert len(said) == 1


def test_a_pattern_made_to_be_slow_is_not(root: Path) -> None:
    put(root / ("a" * 100) / ("a" * 200))
    started = time.monotonic()
    scan(root, include=["*a" * 100 + "b", "/".join(["**", "a*"] * 40) + "/b"])
    assert time.monotonic() - started < 1
