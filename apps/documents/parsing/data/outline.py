"""Nested names and values (JSON, data in XML) as text: "name: value" lines, indented like YAML, a block per record.

No library writes this: YAML's own writers quote, fold and sort, and know neither names that come twice nor numbers as
they were written.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from apps.documents.parsing.build import DEEPEST_HEADING, DEEPEST_INDENT, INVISIBLE, Builder, inline
from apps.documents.parsing.normalise import clean, is_printable

MANY = 5  # records that are worth a heading of their own
SHORT = 600  # characters of a record that fits into any chunk
_PADS = ["  " * depth for depth in range(DEEPEST_INDENT + 1)]
PROSE = 200  # characters of an average line that is prose, which is better cut at sentences than at lines


class Members(list[tuple[str, Any]]):
    """Names and values in their order; a name may come twice."""


class Number(str):
    """A number as it was written."""


def lines(value: Any, name: str = "", depth: int = 0) -> list[str]:
    """`value` as lines below `name` (none: as it is). A value is a str, None, a bool, a Number, Members or a list."""
    out: list[str] = []
    lead = f"{_pad(depth)}{_shown(name)}:" if name else ""
    _write(out, lead, value, depth + bool(name))
    return out


def _pad(depth: int) -> str:
    return _PADS[min(depth, DEEPEST_INDENT)]


@lru_cache(1024)
def _shown(name: str) -> str:
    return name if name.isidentifier() else inline(name)


def _write(out: list[str], lead: str, value: Any, depth: int) -> None:
    """`lead` is what comes before the value in its line: nothing, "name:" or "- "; lines below it are `depth` deep."""
    if isinstance(value, list) and value:
        _write_nested(out, lead, value, depth)
        return
    text = value.strip() if isinstance(value, str) else _scalar(value)
    named = lead[-1:] == ":"
    if "\n" not in text and "\r" not in text:
        out.append(f"{lead} {text}" if named and text else lead + text)
        return
    if named:
        out.append(lead)
        lead = ""
    pad = _pad(depth)
    for row in clean(text).split("\n"):
        if row and not row.isspace():
            out.append((lead or pad) + row.rstrip())
            lead = ""


def _write_nested(out: list[str], lead: str, value: list[Any], depth: int) -> None:
    pad = _pad(depth)
    named = lead[-1:] == ":"
    members = isinstance(value, Members)
    if not members and all(type(item) is Number for item in value):
        out.append(f"{lead}{' ' if named else ''}{', '.join(value)}")
        return
    if named:
        out.append(lead)
        lead = pad
    lead = lead or pad
    for item in value:
        if members:
            name, member = item
            if isinstance(member, str) and member.isprintable():  # most: a line
                out.append(f"{lead}{_shown(name)}: {member.strip()}".rstrip())
            else:
                _write(out, f"{lead}{_shown(name)}:", member, depth + 1)
        else:
            _write(out, lead + "- ", item, depth + 1)
        lead = pad


def _scalar(value: Any) -> str:
    if isinstance(value, Members):
        return "{}"
    if isinstance(value, list):
        return "[]"
    return {True: "true", False: "false", None: "null"}[value]


def add(built: Builder, rows: Iterable[str]) -> None:
    """One block of lines, of the kind that the chunker keeps together best: a paragraph, or code for many lines."""
    text = "\n".join(rows).rstrip()
    if not text:
        return
    if not is_printable(text.replace("\n", "")):
        text = INVISIBLE.sub("", clean(text)).rstrip()
    whole = len(text) <= SHORT or len(text) > PROSE * (text.count("\n") + 1)
    built.add("paragraph" if whole else "code", text)


def add_value(built: Builder, value: Any) -> None:
    """Blocks of a whole document: one for each record of a list and each nested member, one for what is between."""
    if isinstance(value, Members):
        add_members(built, value)
    elif _nested(value):
        add_members(built, (("", item) for item in value))
    elif value != []:
        add(built, lines(value))


def add_members(built: Builder, members: Iterable[tuple[str, Any]], level: int = 1) -> None:
    """The same of names and values; the items of a list have no names.

    A name above many records is a heading of `level`, and so is one above such names.
    """
    pending: list[str] = []
    for name, value in members:
        if not _nested(value):
            if name:
                pending += lines(value, name)
            else:
                _write(pending, "- ", value, 1)
            continue
        add(built, pending)
        pending = []
        if name and level < DEEPEST_HEADING and _is_section(value, level):
            built.heading(name, level)
            add_members(built, value if isinstance(value, Members) else (("", item) for item in value), level + 1)
        else:
            add(built, lines(value, name))
    add(built, pending)


def _nested(value: Any) -> bool:
    """Members, or a list with something nested in it: what is a block of its own."""
    if isinstance(value, Members):
        return bool(value)
    return isinstance(value, list) and any(isinstance(item, list) and item for item in value)


def _is_section(value: Any, level: int) -> bool:
    """Many records, named or not, or a name above such?"""
    if isinstance(value, Members):
        nested = [member for _, member in value if isinstance(member, list) and member]
        if not nested:
            return False
        if sum(isinstance(member, Members) for member in nested) >= MANY:
            return True
        return level < DEEPEST_HEADING and any(_is_section(member, level + 1) for member in nested)
    return len(value) >= MANY and all(isinstance(item, Members) for item in value)
