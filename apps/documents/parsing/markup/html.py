"""HTML pages to readable text: headings, paragraphs, lists, tables and code.

lexbor builds the tree (tolerant, in C); `_Writer` turns one iterative walk over it into text, so that
ten thousand nested tags cost a list entry each and never a Python stack frame.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from selectolax.lexbor import LexborHTMLParser, LexborNode

from apps.documents.parsing.build import DEEPEST_INDENT, INVISIBLE, LONG_TABLE, Builder, is_header, squeezed
from apps.documents.parsing.encoding import decode
from apps.documents.parsing.markup.grid import Grid, number
from apps.documents.parsing.normalise import clean, is_printable
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "html/3"


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


_DROPPED = _tags(
    "script style template noscript head iframe object embed svg canvas audio video map select datalist "
    "textarea input button rp rt dialog"
)
_NOISE = frozenset({"nav"})
_NOISE_ROLES = frozenset({"navigation", "search", "menu", "menubar"})
_HEADINGS = {f"h{n}": n for n in range(1, 7)}
_LISTS = frozenset({"ul", "ol", "dl", "menu"})
_BLOCKS = _tags(
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset "
    "figcaption figure footer form header hgroup hr html legend li main menu ol optgroup p section summary "
    "table tbody td tfoot th thead tr ul"
)
_META_CHARSET = re.compile(rb"<meta[^>]{0,512}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_XML_CHARSET = re.compile(rb"\A\s*<\?xml[^>]{0,200}encoding\s*=\s*[\"']([\w.:-]+)")
_META_WINDOW = 8192  # WHATWG prescan reads 1024 bytes; exported pages put long comments first
# References to the control characters that `clean` takes out or makes newlines of, and lexbor makes of these.
_CONTROL = re.compile(
    r"&#(?:0*(?:[0-8]|1[1-9]|2[0-9]|3[01])(?![0-9])|x0*(?:[0-8b-f]|1[0-9a-f])(?![0-9a-f]))", re.IGNORECASE
)
_SPACE = re.compile(r"[ \t\n\r\f\u00a0]+")
_MAX_NESTING = 20_000  # elements: building the tree takes time that grows with its square, here about two seconds
#: What opens and closes elements; tags in comments, scripts and the like do not.
_TAG = re.compile(
    r"<(?:!--.*?(?:-->|\Z)|(script|style|textarea|title|xmp)\b.*?(?:</\1|\Z)|(/?)([a-z][^\s/>]*))",
    re.IGNORECASE | re.DOTALL,
)
#: Elements without content, and those that the next one of their kind closes.
_FLAT = _tags(
    "area base br col embed hr img input link meta param source track wbr path use circle rect line "
    "p li dt dd tr td th thead tbody tfoot option optgroup rp rt colgroup"
)
_LAYOUT_REACH = 64  # ancestors looked at to find the list or table around a heading


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Visible text of the page without scripts, styles and navigation; title from `<title>` or the first h1.

    Tables become one row per line with cells joined by " | "; a table or list that holds headings is page
    layout and is read as ordinary text. A page that is nothing but navigation keeps its navigation. Raises ParseError:
    "empty", and "malformed" for more than _MAX_NESTING elements in one another.
    """
    head = data[:_META_WINDOW]
    labels = [m.decode("ascii", "ignore") for m in _XML_CHARSET.findall(head) + _META_CHARSET.findall(head)]
    labels = [label for label in labels if not label.lower().startswith(("utf-16", "utf-32"))]  # it was read in ASCII
    source = clean(decode(data, declared=(charset, *labels)).removeprefix("\ufeff"))
    if not source or source.isspace():
        raise ParseError("empty", "The HTML content has no text.")
    if _is_deep(source):
        raise ParseError("malformed", "The HTML is nested too deeply.")
    tree = LexborHTMLParser(source)
    root = tree.body or tree.root
    if root is None:
        raise ParseError("malformed", "The HTML content has no root element.")
    layout = _layout_containers(tree)
    marked = {node.mem_id for node in tree.css("[hidden], [style], [role]")}
    read = clean if _CONTROL.search(source) else str
    spans = {
        node.mem_id: (number(node.attributes.get("colspan")), number(node.attributes.get("rowspan")))
        for node in tree.css("[colspan], [rowspan]")
    }
    writer = _walk(root, _Writer(layout, spans), marked, read, skip_noise=True)
    if not writer.built:
        writer = _walk(root, _Writer(layout, spans), marked, read, skip_noise=False)
    title = tree.css_first("head > title") or tree.css_first("h1")
    return writer.built.parsed(media_type=media_type, parser=FINGERPRINT, title=title.text() if title else None)


def _is_deep(source: str) -> bool:
    """Are more than _MAX_NESTING elements open at once, as far as their tags tell?"""
    if source.count("<") <= _MAX_NESTING:
        return False
    depth, opened = 0, Counter[str]()
    for found in _TAG.finditer(source):
        name = (found[3] or "").lower()
        if not name or name in _FLAT:
            continue
        if not found[2]:
            opened[name] += 1
            depth += 1
            if depth > _MAX_NESTING:
                return True
        elif opened[name]:
            opened[name] -= 1
            depth -= 1
    return False


def _layout_containers(tree: LexborHTMLParser) -> set[int]:
    """`mem_id` of tables and lists that hold a heading or another table: page layout, not data."""
    layout: set[int] = set()
    for node in tree.css("h1, h2, h3, h4, h5, h6, table"):
        parent = node.parent
        only_tables = node.tag == "table"
        for _ in range(_LAYOUT_REACH):
            if parent is None:
                break
            if parent.tag == "table" or (parent.tag in _LISTS and not only_tables):
                layout.add(parent.mem_id)
            parent = parent.parent
    return layout


def _walk(
    root: LexborNode, writer: _Writer, marked: set[int], read: Callable[[str], str], *, skip_noise: bool
) -> _Writer:
    """Depth-first over the tree with an explicit stack of open elements.

    `marked` are the elements with an attribute that may hide them; `read` is applied to each text.
    """
    text = writer.inline.append
    node: LexborNode | None = root
    open_elements: list[tuple[LexborNode, str]] = []
    while node is not None:
        child: LexborNode | None = None
        if node.is_text_node:
            text(read(node.text_content or ""))
        elif node.is_element_node:
            tag = node.tag or ""
            if (
                tag not in _DROPPED
                and not (skip_noise and tag in _NOISE)
                and not (node.mem_id in marked and _is_hidden(node, skip_noise))
            ):
                if enter := _ENTER.get(tag):
                    enter(writer, node, tag)
                child = node.child
                if child is not None:
                    open_elements.append((node, tag))
                elif leave := _LEAVE.get(tag):
                    leave(writer)
        if child is not None:
            node = child
            continue
        following = node.next
        while following is None and open_elements:
            node, tag = open_elements.pop()
            if leave := _LEAVE.get(tag):
                leave(writer)
            following = node.next if open_elements else None
        node = following if open_elements else None
    writer.finish()
    return writer


def _is_hidden(node: LexborNode, skip_noise: bool) -> bool:
    attributes = node.attributes
    if "hidden" in attributes:
        return True
    style = attributes.get("style")
    if style and "display:none" in style.replace(" ", "").lower():
        return True
    return skip_noise and attributes.get("role") in _NOISE_ROLES


def _collapsed(line: str) -> str:
    plain = line if line.isprintable() else line.replace("\n", " ").replace("\t", " ").replace("\u00a0", " ")
    if is_printable(plain):  # most: blanks are its only white space, and nothing in it is invisible
        return squeezed(plain)
    return _SPACE.sub(" ", INVISIBLE.sub("", line)).strip()


class _Writer:
    """Collects inline text, and closes it into a line or a block whenever a block-level tag says so.

    A list and a table are one block each, however deep they nest; everything inside becomes their lines.
    """

    def __init__(self, layout: set[int], spans: dict[int, tuple[int, int]]) -> None:
        self.built = Builder()
        self.inline: list[str] = []
        self._layout = layout
        self._heading = 0
        self._pre = 0
        self._lists: list[list[object]] = []  # [tag, next number, is layout]
        self._tables: list[bool] = []  # is layout
        self._marker = ""
        self._cells: list[str] = []
        self._rows: list[list[str]] = []  # of the table that is open
        self._grid = Grid()
        self._spans = spans  # (columns, rows) of cells that cover several, by `mem_id`
        self._span: tuple[int, int] | None = None  # of the cell that is open
        self._row_spans: dict[int, tuple[int, int]] = {}  # of the row's cells, by their number
        self._lines: list[str] = []  # of the list or table that is open

    def enter_block(self, node: LexborNode, tag: str) -> None:
        self._close_line()

    def enter_break(self, node: LexborNode, tag: str) -> None:
        self.inline.append("\n" if self._pre else "\x0b")  # \x0b: cannot occur in cleaned text

    def enter_heading(self, node: LexborNode, tag: str) -> None:
        self._close_line()
        self._heading = _HEADINGS[tag]

    def enter_pre(self, node: LexborNode, tag: str) -> None:
        self._close_line()
        self._pre += 1

    def enter_list(self, node: LexborNode, tag: str) -> None:
        self._close_line()
        is_layout = node.mem_id in self._layout
        if not is_layout and not self._in_container():
            self._lines = []
        start = node.attributes.get("start") if tag == "ol" else None
        number = int(start) if start and re.fullmatch(r"-?\d{1,9}", start) else 1
        self._lists.append([tag, number, is_layout])

    def enter_item(self, node: LexborNode, tag: str) -> None:
        self._close_line()
        if not self._lists or self._lists[-1][2] or self._in_data_table():
            return
        entry = self._lists[-1]
        if tag == "dd":
            self._marker = "  "
        elif tag == "dt":
            self._marker = ""
        elif entry[0] == "ol":
            number = entry[1]
            assert isinstance(number, int)
            self._marker = f"{number}. "
            entry[1] = number + 1
        else:
            self._marker = "- "

    def enter_table(self, node: LexborNode, tag: str) -> None:
        self._close_line()
        is_layout = node.mem_id in self._layout or node.attributes.get("role") == "presentation"
        if not is_layout and not self._in_container():
            self._lines = []
        self._tables.append(is_layout)
        if not is_layout:
            self._cells = []
            self._grid = Grid()

    def enter_row(self, node: LexborNode, tag: str) -> None:
        self._close_line()
        if self._in_data_table():
            self._close_row()  # a caption

    def enter_cell(self, node: LexborNode, tag: str) -> None:
        if not self._in_data_table():
            self._close_line()
            return
        if self.inline:
            self._close_cell()
        self._span = self._spans.get(node.mem_id)

    def leave_block(self) -> None:
        self._close_line()

    def leave_heading(self) -> None:
        self._close_line()
        self._heading = 0

    def leave_pre(self) -> None:
        self._close_line()
        self._pre -= 1

    def leave_list(self) -> None:
        self._close_line()
        is_layout = self._lists.pop()[2]
        if not is_layout and not self._in_container():
            self._emit("list", "\n".join(self._lines))
            self._lines = []

    def leave_table(self) -> None:
        if self._in_data_table():
            self._close_row()
        self._close_line()
        if self._tables.pop() or self._in_data_table():
            return
        rows, self._rows = self._rows, []
        if self._in_container():
            self._lines += map(" | ".join, rows)
            return
        titles = 0
        while titles < len(rows) - LONG_TABLE and sum(map(bool, rows[titles])) == 1:
            titles += 1
        if titles < len(rows) and is_header(rows[titles]):  # what stands above the columns' names is no row
            for row in rows[:titles]:
                self._emit("paragraph", "".join(row))
            rows = rows[titles:]
        self.built.table(rows)

    def leave_row(self) -> None:
        self._close_row() if self._in_data_table() else self._close_line()

    def leave_cell(self) -> None:
        self._close_cell() if self._in_data_table() else self._close_line()

    def finish(self) -> None:
        self._close_line()
        if self._lines:
            self._emit("list", "\n".join(self._lines))
            self._lines = []

    def _in_data_table(self) -> bool:
        return bool(self._tables) and not self._tables[-1]

    def _in_container(self) -> bool:
        return any(not layout for layout in self._tables) or any(not entry[2] for entry in self._lists)

    def _take_inline(self) -> str:
        """The collected inline text with HTML white space collapsed; <br> is a newline outside tables."""
        if not self.inline:
            return ""
        raw = "".join(self.inline)
        self.inline.clear()
        if "\x0b" not in raw:
            return _collapsed(raw)
        return "\n".join(filter(None, map(_collapsed, raw.split("\x0b"))))

    def _close_line(self) -> None:
        if not self.inline:
            return
        if self._in_data_table():
            self.inline.append(" ")
            return
        if self._pre:
            code = INVISIBLE.sub("", "".join(self.inline)).replace("\x0b", "\n").replace("\u00a0", " ")
            self.inline.clear()
            code = "\n".join(line.rstrip() for line in code.strip("\n").split("\n"))
            if not code or code.isspace():
                return
            if self._in_container():
                self._lines.extend(code.split("\n"))
            else:
                self._emit("code", code)
            return
        line = self._take_inline()
        if not line:
            return
        if self._in_container():
            depth = sum(not entry[2] for entry in self._lists) - 1
            indent = "  " * max(0, min(depth, DEEPEST_INDENT))
            prefix = indent + self._marker
            rest = indent + " " * len(self._marker)
            self._lines.append(prefix + line.replace("\n", "\n" + rest))
            self._marker = " " * len(self._marker)
        elif self._heading:
            self._emit("heading", line.replace("\n", " "), self._heading)
        else:
            self._emit("paragraph", line)

    def _close_cell(self) -> None:
        if self._span:
            self._row_spans[len(self._cells)], self._span = self._span, None
        self._cells.append(self._take_inline().replace("\n", " "))

    def _close_row(self) -> None:
        if stray := self._take_inline():
            self._cells.append(stray.replace("\n", " "))
        if self._row_spans or (self._cells and self._grid.covered):
            spans = (self._row_spans.get(at, (1, 1)) for at in range(len(self._cells)))
            self._cells = self._grid.row((text, *span) for text, span in zip(self._cells, spans, strict=True))
            self._row_spans = {}
        if any(self._cells):
            self._rows.append(self._cells)
        self._cells = []

    def _emit(self, kind: str, text: str, level: int = 0) -> None:
        text = text.strip("\n") if kind == "code" else text.strip()
        self.built.add(kind, text, level)


_ENTER: dict[str, Callable[[_Writer, LexborNode, str], None]] = {
    **dict.fromkeys(_BLOCKS, _Writer.enter_block),
    **dict.fromkeys(_HEADINGS, _Writer.enter_heading),
    **dict.fromkeys(_LISTS, _Writer.enter_list),
    **dict.fromkeys(("li", "dt", "dd"), _Writer.enter_item),
    **dict.fromkeys(("td", "th"), _Writer.enter_cell),
    "br": _Writer.enter_break,
    "pre": _Writer.enter_pre,
    "table": _Writer.enter_table,
    "tr": _Writer.enter_row,
}
_LEAVE: dict[str, Callable[[_Writer], None]] = {
    **dict.fromkeys(_BLOCKS, _Writer.leave_block),
    **dict.fromkeys(_HEADINGS, _Writer.leave_heading),
    **dict.fromkeys(_LISTS, _Writer.leave_list),
    **dict.fromkeys(("td", "th"), _Writer.leave_cell),
    "pre": _Writer.leave_pre,
    "table": _Writer.leave_table,
    "tr": _Writer.leave_row,
}
