"""Jupyter notebooks, formats 3 and 4: Markdown as Markdown, code and what it printed as code; images are left out.

nbformat would only check and upgrade what is a dozen fields to read.
"""

from __future__ import annotations

import json
import re
from typing import Any

from apps.documents.parsing.build import Builder
from apps.documents.parsing.encoding import decode
from apps.documents.parsing.markup import html, markdown
from apps.documents.parsing.normalise import clean
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "notebook/1"

_DATA_URI = re.compile(r"\bdata:[\w.+/-]+(?:;[\w=-]+)*;base64,[A-Za-z0-9+/=\s%]*+")
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # ECMA-48 control sequences: colours
_OBJECT = re.compile(r"\s*<[\w.]+(?:\s+(?:object|at 0x\w+))*>\s*")
_OLD_NAMES = {"text/plain": "text", "text/html": "html", "text/latex": "latex", "text/markdown": "markdown"}


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Cells in their order, what a cell printed below it. The title is the metadata's or the first heading of level 1.

    Raises ParseError("malformed") for what is not JSON or has no cells.
    """
    try:
        book = json.loads(decode(data, declared=(charset,)).removeprefix("\ufeff"), strict=False)
    except json.JSONDecodeError as error:
        detail = f"The notebook is not JSON from line {error.lineno}, column {error.colno} on."
        raise ParseError("malformed", detail) from error
    cells = _cells(book)
    if cells is None:
        raise ParseError("malformed", "The notebook has no cells.")
    built = Builder()
    title = _text(_dict(book.get("metadata")).get("title")) or None
    for cell in cells:
        found = _add_cell(built, _dict(cell))
        title = title or found
    return built.parsed(media_type=media_type, parser=FINGERPRINT, title=title)


def _cells(book: Any) -> list[Any] | None:
    """All cells; format 3 has them in worksheets. None where it is not a notebook."""
    if not isinstance(book, dict):
        return None
    if isinstance(book.get("cells"), list):
        return book["cells"]
    sheets = book.get("worksheets")
    return [cell for sheet in sheets for cell in _list(_dict(sheet).get("cells"))] if isinstance(sheets, list) else None


def _add_cell(built: Builder, cell: dict[str, Any]) -> str | None:
    """Adds a cell with what it printed; returns its heading of level 1, if it has one."""
    kind = cell.get("cell_type")
    source = _text(cell.get("source", cell.get("input")))
    if kind == "markdown":
        return _add_markdown(built, source)
    if kind == "heading":  # format 3
        level = cell.get("level")
        built.heading(source, level if isinstance(level, int) else 1)
        return source if level == 1 else None
    built.code(source)
    for output in _list(cell.get("outputs")):
        _add_output(built, _dict(output))
    return None


def _add_markdown(built: Builder, source: str) -> str | None:
    if "data:" in source:
        source = _DATA_URI.sub("", source)
    source = clean(source).strip("\n")
    if not source or source.isspace():
        return None
    part = markdown.read(source.removeprefix("\ufeff"), media_type="text/markdown")
    built.graft(part)
    return part.title


def _add_output(built: Builder, output: dict[str, Any]) -> None:
    """What was printed, the result that was shown, or the last line of an error."""
    kind = output.get("output_type")
    if kind in ("error", "pyerr"):
        built.code(_printed(f"{_text(output.get('ename'))}: {_text(output.get('evalue'))}"))
    elif kind == "stream":
        built.code(_printed(_text(output.get("text"))))
    else:
        shown = _dict(output.get("data")) if "data" in output else output
        _add_result(built, shown)


def _add_result(built: Builder, shown: dict[str, Any]) -> None:
    """One of several forms of the same result: the one that is text and says most."""
    plain, page, source = (
        _text(shown.get(name) or shown.get(_OLD_NAMES[name])) for name in ("text/plain", "text/html", "text/markdown")
    )
    if source:
        _add_markdown(built, source)
    elif page and (not plain or _OBJECT.fullmatch(plain)):
        try:
            built.graft(html.parse(clean(page).encode(), media_type="text/html", charset="utf-8"))
        except ParseError:  # nothing but scripts
            return
    elif not (plain.startswith("<") and _has_image(shown)):
        built.code(_printed(plain or _text(shown.get("text/latex") or shown.get("latex"))))


def _has_image(shown: dict[str, Any]) -> bool:
    return any(name.startswith("image/") or name in ("png", "jpeg", "svg") for name in shown)


def _printed(text: str) -> str:
    """What a terminal would show: without colours, and of lines that were overwritten the last form."""
    text = _ESCAPE.sub("", text)
    if "\r" not in text:
        return text
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def _text(value: Any) -> str:
    """A text, which notebooks also give as a list of lines."""
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
