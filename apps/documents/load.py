"""Files and lines on this machine to documents: what `manage.py ingest` reads."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from mimetypes import guess_type
from pathlib import Path

from django.conf import settings

from apps.access.problems import Problem, as_problem

from .accept import Submission
from .serializers import SubmissionSerializer
from .submission import HEAD_BYTES, from_line, must_hold_text
from .write_through import INLINE_BYTES

LINES = (".ndjson", ".jsonl")
GROUP_DOCUMENTS, GROUP_BYTES = 200, 4 * 2**20

#: What a document is called in messages, and the document or why it cannot be one.
Read = tuple[str, Submission | Problem]


def paths(root: Path) -> list[Path]:
    """The files of a folder, in order, or the one file. Hidden ones, and links to folders, are left out."""
    if not root.is_dir():
        return [root]
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder) / name for name in sorted(names) if not name.startswith(".")]
    return found


def read(root: Path, *, collection: str, priority: str) -> Iterator[Read]:
    """The documents of a file or folder, one at a time; the source URI is the path within the folder.

    A file of lines that is named itself holds documents, as `POST /documents/bulk` takes them; within a folder it is a
    text like others.
    """
    if root.suffix.lower() in LINES and root.is_file():
        yield from _lines(root, collection=collection, priority=priority)
        return
    for path in paths(root):
        name = path.relative_to(root).as_posix() if path != root else path.name
        try:
            yield name, _file(path, name, priority)
        except OSError as error:
            yield name, Problem(422, "unreadable", f"The file cannot be read: {error.strerror}.")
        except Problem as problem:
            yield name, problem


def _file(path: Path, name: str, priority: str) -> Submission:
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


def _lines(path: Path, *, collection: str, priority: str) -> Iterator[Read]:
    checker = SubmissionSerializer(context={"form": False})
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", from_line(line, checker, collection=collection, priority=priority)[2]
            except Exception as error:
                yield f"line {number}", as_problem(error)


def groups(documents: Iterable[Read]) -> Iterator[list[Read]]:
    """As many as one transaction takes, by number and bytes."""
    group: list[Read] = []
    size = 0
    for each in documents:
        group.append(each)
        if isinstance(each[1], Submission):
            size += each[1].content.seek(0, io.SEEK_END)
        if len(group) >= GROUP_DOCUMENTS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def count(root: Path) -> int:
    """How many `read` will give, about: a file of lines may have blank ones."""
    if root.suffix.lower() in LINES and root.is_file():
        with root.open("rb") as file:
            return sum(1 for _ in file)
    return len(paths(root))


def close(group: Iterable[Read]) -> None:
    for _, each in group:
        if isinstance(each, Submission):
            each.content.close()
