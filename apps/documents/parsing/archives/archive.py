"""ZIP archives: every document in one, under a heading of its path.

What cannot be read is noted and left out. Nothing is unpacked to a file, so a member's path leads nowhere.
"""

from __future__ import annotations

import stat

from apps.documents.parsing import members
from apps.documents.parsing.archives.zipped import open_zip, read_member
from apps.documents.parsing.build import Builder
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "archive/1"

#: Members that systems and tools leave in archives, by a part of their path.
_LITTER = frozenset({"__macosx", ".ds_store", "thumbs.db", "desktop.ini", ".git", ".svn"})


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """The documents in the order of their paths.

    Raises ParseError: "encrypted", "corrupt", "archive_bomb" and "too_large" as `open_zip` and `members.add` do; where
    no member can be read "corrupt" if one is damaged, else "empty", with the first reason.
    """
    built = Builder()
    code = "empty"
    with open_zip(data) as archive:
        for info in sorted(archive.infolist(), key=lambda each: each.filename):
            if info.is_dir() or _LITTER.intersection(info.filename.lower().split("/")):
                continue
            if stat.S_ISLNK(info.external_attr >> 16):  # its content is a path
                built.note(f"{info.filename[-80:]} was left out: It is a symbolic link.")
                continue
            try:
                content = read_member(archive, info)
            except ParseError as error:
                code = error.code
                built.note(f"{info.filename[-80:]} was left out: {error.detail}")
                continue
            members.add(built, content, name=info.filename)
    if not built:
        reason = built.notes[0] if built.notes else "It holds no file."
        raise ParseError(code, f"No document of the archive can be read. {reason}"[:300])
    return built.parsed(media_type=media_type, parser=FINGERPRINT)
