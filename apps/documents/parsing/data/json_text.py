"""JSON and JSON lines: every name and value as "name: value" lines, a block per record (see `outline`).

The standard library's decoder, since it alone of those at hand keeps numbers as they are written and names that come
twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from apps.documents.parsing.build import Builder
from apps.documents.parsing.data import outline
from apps.documents.parsing.encoding import decode
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "json_text/1"

MAX_COMMENTED = 4 * 1024 * 1024  # characters; JSON with comments is configuration, which is short
_SHOWN_LINES = 10
_LINES = frozenset({"application/x-ndjson", "application/jsonl", "application/x-jsonlines"})
_STRING = r'"(?:[^"\\\n]|\\.)*+"'
_COMMENT = re.compile(rf"({_STRING})|//[^\n]*|/\*(?:[\s\S]*?\*/|[\s\S]*)")
_LAST_COMMA = re.compile(rf"({_STRING})|,(?=\s*[}}\]])")
_SPACE = re.compile(r"\s*")
# `strict` would refuse a line break inside a string, which many programs write.
_DECODER = json.JSONDecoder(
    object_pairs_hook=outline.Members,
    parse_int=outline.Number,
    parse_float=outline.Number,
    parse_constant=outline.Number,
    strict=False,
)


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Names and values in their order. A line of JSON lines that is not JSON is left out with a note.

    What is called JSON may be JSON lines, several values after one another, or JSON with comments, which is kept as it
    is. Raises ParseError("malformed") with line and column.
    """
    text = decode(data, declared=(charset,)).removeprefix("\ufeff")
    built = Builder()
    try:
        if media_type in _LINES:
            if not _add_lines(built, text):
                _add_all(built, text)
        else:
            _add_whole(built, text)
    except json.JSONDecodeError as error:
        if text.isspace():
            raise ParseError("empty", "The JSON content has no text.") from error
        detail = f"The content is not JSON from line {error.lineno}, column {error.colno} on: {error.msg}."
        raise ParseError("malformed", detail) from error
    return built.parsed(media_type=media_type, parser=FINGERPRINT)


def _add_whole(built: Builder, text: str) -> None:
    """One value. Raises JSONDecodeError where nothing that is called JSON fits."""
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            try:
                _add_all(built, text)
                return
            except json.JSONDecodeError:
                if _add_lines(built, text):
                    return
        elif _has_comments(text):
            built.code(text)
            return
        raise
    outline.add_value(built, value)


def _add_all(built: Builder, text: str) -> None:
    """Values one after another with nothing between them but white space. Raises JSONDecodeError."""
    values: list[Any] = []
    at = _end_of_space(text, 0)
    while at < len(text) or not values:
        value, at = _DECODER.raw_decode(text, at)
        values.append(value)
        at = _end_of_space(text, at)
    for value in values:
        outline.add_value(built, value)


def _end_of_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _add_lines(built: Builder, text: str) -> bool:
    """A block for each line; False, and nothing added, where not half of the lines before the first block are JSON."""
    bad: list[int] = []
    good = 0
    for number, line in _numbered(text):
        try:
            value = _DECODER.decode(line)
        except (json.JSONDecodeError, RecursionError):
            bad.append(number)
            continue
        if not good and len(bad) > 1:
            return False
        good += 1
        outline.add(built, outline.lines(value))
    if bad and good:
        shown = ", ".join(map(str, bad[:_SHOWN_LINES])) + (" ..." if len(bad) > _SHOWN_LINES else "")
        built.note(f"{len(bad)} of {good + len(bad)} lines are not JSON and were left out: {shown}.")
    return good > 0


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of each line that is not blank; the text is not split as a whole, which may be long."""
    start, number = 0, 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        number += 1
        line = text[start:end]
        if line and not line.isspace():
            yield number, line
        start = end + 1


def _has_comments(text: str) -> bool:
    """Is it JSON once comments and commas behind the last member are taken out, as in many configuration files?"""
    if len(text) > MAX_COMMENTED:
        return False
    plain = _LAST_COMMA.sub(r"\1", _COMMENT.sub(r"\1", text))
    try:
        return isinstance(_DECODER.decode(plain), list) and plain != text
    except json.JSONDecodeError:
        return False
