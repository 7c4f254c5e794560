"""Files and lines on this machine to documents: what `manage.py ingest` reads."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from mimetypes import guess_type
from pathlib import Path

from django.conf import settings

from apps.access.problems import Problem, as_problem, invalid
from apps.access.serializers import unstorable_text

from .accept import Submission
from .serializers import SubmissionSerializer
from .submission import HEAD_BYTES, from_line, must_hold_text
from .write_through import INLINE_BYTES

LINES = (".ndjson", ".jsonl")
GROUP_DOCUMENTS, GROUP_BYTES = 1_000, 4 * 2**20

#: What a document is called in messages, and its line or file.
Raw = tuple[str, bytes | Path]
#: The same, and the document or why it cannot be one.
Read = tuple[str, Submission | Problem]


def paths(root: Path) -> list[Path]:
    """The files of a folder, in order, or the one file. Hidden ones, links to folders, pipes and devices are left
    out."""
    if not root.is_dir():
        return [root]
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            path
            for name in sorted(names)
            if not name.startswith(".") and ((path := Path(folder) / name).is_file() or path.is_symlink())
        ]
    return found


def has_lines(root: Path) -> bool:
    """Is it a file of documents as lines? Within a folder such a file is a text like others."""
    return root.suffix.lower() in LINES and root.is_file()


def count(root: Path) -> int:
    """How many documents there are."""
    if has_lines(root):
        with root.open("rb") as file:
            return sum(1 for line in file if line.strip())
    return len(paths(root))


def groups(root: Path) -> Iterator[list[Raw]]:
    """The documents of a file or folder, unread: so many at a time, by number and bytes."""
    group: list[Raw] = []
    size = 0
    for each in _lines(root) if has_lines(root) else _files(root):
        group.append(each)
        size += len(each[1]) if isinstance(each[1], bytes) else _size(each[1])
        if len(group) >= GROUP_DOCUMENTS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _lines(path: Path) -> Iterator[Raw]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"line {number}", line


def _files(root: Path) -> Iterator[Raw]:
    for path in paths(root):
        yield path.relative_to(root).as_posix() if path != root else path.name, path


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read(group: Iterable[Raw], *, collection: str, priority: str) -> list[Read]:
    """The documents of a group; the source URI of a file is its name. `close` them."""
    checker = SubmissionSerializer(context={"form": False})
    found: list[Read] = []
    for name, raw in group:
        try:
            if isinstance(raw, bytes):
                found.append((name, _line(raw, checker, collection=collection, priority=priority)))
            else:
                found.append((name, _file(raw, name, priority)))
        except OSError as error:
            found.append((name, Problem(422, "unreadable", f"The file cannot be read: {error.strerror}.")))
        except Exception as error:
            found.append((name, as_problem(error)))
    return found


def _line(raw: bytes, checker: SubmissionSerializer, *, collection: str, priority: str) -> Submission:
    slug, _, submission, _ = from_line(raw, checker, collection=collection, priority=priority)
    if slug != collection:
        raise invalid("/collection", f"The line is for {slug!r}, the command for {collection!r}.", status=422)
    return submission


def _file(path: Path, name: str, priority: str) -> Submission:
    if unstorable_text(name):
        raise Problem(422, "invalid", "The file's name is not UTF-8.")
    size = path.stat().st_size
    if size > settings.MAX_DOCUMENT_BYTES:
        raise Problem(413, "too_large", f"At most {settings.MAX_DOCUMENT_BYTES} bytes.")
    # A large file is read part by part when it is stored.
    content = io.BytesIO(path.read_bytes()) if size <= INLINE_BYTES else path.open("rb")
    media_type = guess_type(path.name)[0] or "application/octet-stream"
    must_hold_text(content.read(HEAD_BYTES), media_type, path.name)
    return Submission(
        content=content,
        media_type=media_type,
        filename=path.name,
        source_uri=name,
        priority=priority,
        source_updated_at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
    )


def close(group: Iterable[Read]) -> None:
    """Let go of the files."""
    for _, each in group:
        if isinstance(each, Submission):
            each.content.close()
