"""Office documents in one XML file: Word and Excel 2003, and the flat form of later packages, as text.

python-docx and python-pptx open packages only. Of a later package the text of its main parts is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from apps.documents.parsing.build import Builder
from apps.documents.parsing.markup.xml_tree import Element, child, children, local

_WORD_PARTS = re.compile(r"/word/(?:document|footnotes|endnotes|comments)\.xml\Z")
_SLIDE = re.compile(r"/ppt/slides/slide(\d+)\.xml\Z")
_HEADING = re.compile(r"heading\s*([1-9])", re.IGNORECASE)
_BREAKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_UNSEEN = frozenset({"del", "moveFrom", "instrText", "delText", "pPr", "rPr", "sectPr", "tblPr", "binData", "Fallback"})
_MOST_CELLS = 16_384  # columns of a sheet


def add(built: Builder, root: Element) -> bool:
    """Adds the document; False where the root is of no office format."""
    name = local(root)
    if name == "Workbook":
        _add_sheets(built, root)
    elif name == "wordDocument":
        _add_body(built, child(root, "body"))
    elif name == "package" and "office/2006/xmlPackage" in root.tag:
        _add_package(built, root)
    elif name == "document" and "wordprocessingml" in root.tag:
        _add_body(built, child(root, "body"))
    else:
        return False
    return True


def _add_package(built: Builder, root: Element) -> None:
    slides: list[tuple[int, Element]] = []
    for part in children(root, "part"):
        name = next((found for key, found in part.attrib.items() if key.endswith("name")), "")
        if _WORD_PARTS.search(name):
            for top in part.iter("{*}body", "{*}footnote", "{*}endnote", "{*}comment"):
                _add_body(built, top)
        elif slide := _SLIDE.search(name):
            slides.append((int(slide.group(1)), part))
    for built.page, part in sorted(slides, key=lambda each: each[0]):
        for paragraph in part.iter("{http://schemas.openxmlformats.org/drawingml/2006/main}p"):
            built.paragraph(_text(paragraph))
    built.page = None


def _add_body(built: Builder, body: Element | None) -> None:
    for element in [] if body is None else body:
        name = local(element)
        if name == "p":
            _add_paragraph(built, element)
        elif name == "tbl":
            built.table([_cells(row) for row in element.iter("{*}tr")])
        elif name not in _UNSEEN:  # sections, content controls, changes that were made
            _add_body(built, element)


def _add_paragraph(built: Builder, element: Element) -> None:
    """A paragraph, and behind it the text boxes that are anchored in it."""
    style = child(element, "pPr", "pStyle")
    called = "" if style is None else next(iter(style.attrib.values()), "")
    boxes: list[Element] = []
    text = "".join(_pieces(element, boxes))
    if found := _HEADING.match(called):
        built.heading(text, int(found.group(1)))
    else:
        built.paragraph(text)
    for box in boxes:
        _add_body(built, box)


def _cells(row: Element) -> list[str]:
    return [" ".join(_text(each) for each in cell.iter("{*}p")) for cell in children(row, "tc")]


def _text(element: Element) -> str:
    return "".join(_pieces(element, []))


def _pieces(element: Element, boxes: list[Element]) -> Iterator[str]:
    for each in element:
        name = local(each)
        if name == "t":
            yield each.text or ""
        elif name in _BREAKS:
            yield _BREAKS[name]
        elif name == "txbxContent":
            boxes.append(each)
        elif name not in _UNSEEN:
            yield from _pieces(each, boxes)


def _add_sheets(built: Builder, root: Element) -> None:
    """SpreadsheetML 2003: a sheet is a page under a heading of its name."""
    for number, sheet in enumerate(children(root, "Worksheet"), start=1):
        built.page = number
        built.heading(_attribute(sheet, "Name"), 1)
        table = child(sheet, "Table")
        built.table([] if table is None else (_values(row) for row in children(table, "Row")))
    built.page = None


def _values(row: Element) -> list[str]:
    """Cells at their columns: ss:Index jumps, ss:MergeAcross covers."""
    values: list[str] = []
    for cell in children(row, "Cell"):
        index = _number(cell, "Index")
        values += [""] * (min(index, _MOST_CELLS) - 1 - len(values))
        values.append(" ".join("".join(data.itertext()) for data in cell.iterchildren("{*}Data", "{*}Comment")))
        values += [""] * min(_number(cell, "MergeAcross"), _MOST_CELLS - len(values))
    return values


def _number(element: Element, name: str) -> int:
    found = _attribute(element, name)
    return int(found) if found.isdecimal() and len(found) < 9 else 0


def _attribute(element: Element, name: str) -> str:
    return next((found for key, found in element.attrib.items() if key.rpartition("}")[2] == name), "")
