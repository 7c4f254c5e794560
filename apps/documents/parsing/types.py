"""What a parser returns and how it fails.

Kept apart from the parsers so that the chunker, the sandbox and the tests can import the shapes
without importing a single parsing library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

KINDS = ("heading", "paragraph", "list", "table", "code")
MAX_NOTES, NOTE_LENGTH = 20, 200


class Block(NamedTuple):
    """One structural piece of a normalised text.

    `start` and `end` are offsets in Unicode code points, end-exclusive. Blocks of one document ascend
    and never overlap; text between two blocks belongs to none (rules, front matter, blank lines).
    `level` is 1..6 for headings and 0 otherwise. `page` counts from 1 where the format has pages.
    """

    kind: str
    start: int
    end: int
    level: int = 0
    page: int | None = None


@dataclass(slots=True)
class Parsed:
    """The normalised text of one document, its blocks, and who made them.

    `parser` is a fingerprint such as "html/1": raise its number whenever the same bytes would give a
    different text or different blocks, so that stored versions say which parser they came from. `notes` are sentences
    for the curator about what could not be read, at most MAX_NOTES of NOTE_LENGTH characters.
    """

    text: str
    blocks: list[Block] = field(default_factory=list)
    media_type: str = "text/plain"
    title: str | None = None
    parser: str = "plain/1"
    notes: list[str] = field(default_factory=list)


class ParseError(Exception):
    """The document cannot be turned into text.

    `code` is one of `CODES`, stable and meant for programs; `detail` is one sentence for a person and
    contains no traceback, no local path and nothing of the document's content.
    """

    CODES = frozenset(
        {
            "archive_bomb",  # it would unpack to far more than it says or than anybody needs
            "corrupt",  # the container is broken
            "crashed",  # the sandboxed process died
            "empty",  # readable, but it holds no text
            "encrypted",  # a password is needed
            "malformed",  # the parser gave up on what it found
            "timeout",  # wall clock or CPU limit
            "too_large",  # input, output or memory limit
            "unavailable",  # no sandbox could be started; says nothing about the document
            "undecodable",  # damaged text, or text in no character encoding that can be told
            "unsupported",  # no parser for this kind of content
        }
    )

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"
