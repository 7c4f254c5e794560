"""Markdown: the source is the text; markdown-it only says where its blocks are.

The inline phase is switched off. It is the slow half of the parser, and the source keeps its marks, so
nothing of it would be used.
"""

from __future__ import annotations

import re

from markdown_it import MarkdownIt

from apps.documents.parsing.encoding import decode
from apps.documents.parsing.normalise import normalise
from apps.documents.parsing.plain import paragraphs
from apps.documents.parsing.types import Block, Parsed

FINGERPRINT = "markdown/2"

# Block parsing runs at about 0.3 MB/s; a longer "Markdown" file is a data dump and is read as plain text.
MAX_STRUCTURED = 8 * 1024 * 1024

_KIND = {
    "heading_open": "heading",
    "paragraph_open": "paragraph",
    "blockquote_open": "paragraph",
    "html_block": "paragraph",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "table_open": "table",
    "fence": "code",
    "code_block": "code",
}
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[^\S\n]*\n(.*?\n)?\1[^\S\n]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title\s*[:=]\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
_MARKS = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|[*_`~]+")
# A line that may be more than a line of a paragraph, and no heading of the form `# Title`.
_MARKED = re.compile(r"^(?![^\s\d#>*+`~|:=_<\[-]|\d+(?![\d.)])|#{1,6}(?:[ \t]|$)|[ \t]*$)", re.MULTILINE)
_PIECE = re.compile(r"^(?:(#{1,6})(?:[ \t].*)?$|[^\s#].*(?:\n[^\s#].*)*)", re.MULTILINE)


def _engine() -> MarkdownIt:
    engine = MarkdownIt("commonmark").enable("table")
    engine.core.ruler.enableOnly(["normalize", "block"])
    return engine


_MARKDOWN = _engine()


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Top-level blocks of the source; the title is the front matter's or the first level-1 heading's."""
    return read(decode(data, declared=(charset,)), media_type=media_type)


def read(text: str, *, media_type: str) -> Parsed:
    """The same of a text that has been decoded."""
    text = normalise(text)
    front = _FRONT_MATTER.match(text)
    body = front.end() if front else 0
    blocks = _blocks(text, body) if len(text) <= MAX_STRUCTURED else paragraphs(text, body)
    title = _front_title(front.group(2) or "") if front else None
    if title is None:
        first = next((block for block in blocks if block.kind == "heading" and block.level == 1), None)
        title = heading_text(text[first.start : first.end]) if first else None
    return Parsed(text=text, blocks=blocks, media_type=media_type, title=title, parser=FINGERPRINT)


def heading_text(source: str) -> str:
    """A heading's words without its marks: `## *Hello* [x](y) ##` and its underlined form alike."""
    line = source.strip().split("\n", 1)[0] if not source.startswith("#") else source.strip().strip("#")
    return _MARKS.sub(lambda m: m.group(1) or "", line).strip()


def _front_title(front: str) -> str | None:
    found = _FRONT_TITLE.search(front)
    return found.group(1).strip("\"'").strip() or None if found else None


def _blocks(text: str, body: int) -> list[Block]:
    return _parsed(text, body) if _MARKED.search(text, body) else _pieces(text, body)


def _pieces(text: str, body: int) -> list[Block]:
    """The blocks of a text of nothing but headings and paragraphs: without the parser, and as it would find them."""
    blocks: list[Block] = []
    for piece in _PIECE.finditer(text, body):
        level = len(piece[1] or "")
        end = piece.start() + len(piece[0].rstrip())
        blocks.append(Block("heading" if level else "paragraph", piece.start(), end, level))
    return blocks


def _parsed(text: str, body: int) -> list[Block]:
    starts = [body]
    at = text.find("\n", body)
    while at >= 0:
        starts.append(at + 1)
        at = text.find("\n", at + 1)
    starts.append(len(text))
    blocks: list[Block] = []
    for token in _MARKDOWN.parse(text[body:]):
        kind = _KIND.get(token.type)
        if kind is None or token.level or token.map is None:
            continue
        first, last = token.map
        start, end = starts[first], starts[min(last, len(starts) - 1)]
        # A list's or fence's last line may run over blank lines; an indented code block keeps its indent.
        end = start + len(text[start:end].rstrip())
        if kind != "code":
            start = end - len(text[start:end].lstrip())
        if start < end:
            level = int(token.tag[1]) if kind == "heading" else 0
            blocks.append(Block(kind, start, end, level))
    return blocks
