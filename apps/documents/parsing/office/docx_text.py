"""The words of one Word paragraph, without what a reader does not see of them."""

from __future__ import annotations

from collections.abc import Iterator

from apps.documents.parsing.office.docx_styles import Styles
from apps.documents.parsing.office.drawing import DGM, PIC, C, description
from apps.documents.parsing.office.formula import M, formula
from apps.documents.parsing.office.ooxml import MC, Element, R, W, chosen, is_on

WP = "{http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing}"
V = "{urn:schemas-microsoft-com:vml}"

MAX_FIELDS = 50  # open at a time; a document that opens more does not close them
_WRAPPERS = frozenset(
    W + name for name in ("ins", "moveTo", "smartTag", "customXml", "hyperlink", "dir", "bdo", "rubyBase")
)
_CHARACTERS = {
    **{W + "tab": "\t", W + "ptab": "\t", W + "br": "\n", W + "cr": "\n"},
    **{W + "noBreakHyphen": "-"},
}
_NOTES = {W + "footnoteReference": "footnote", W + "endnoteReference": "endnote", W + "commentReference": "comment"}
_PAGE_FIELDS = ("PAGE", "NUMPAGES", "SECTIONPAGES")

# The Symbol font puts Greek where ASCII has Latin letters; of the pictures of Wingdings those that mean something.
_SYMBOL = {
    **dict(zip(range(0x41, 0x5B), "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ", strict=True)),
    **dict(zip(range(0x61, 0x7B), "αβχδεφγηιϕκλμνοπθρστυϖωξψζ", strict=True)),
    **{0xA3: "≤", 0xA5: "∞", 0xAB: "↔", 0xAC: "←", 0xAD: "↑", 0xAE: "→", 0xAF: "↓", 0xB0: "°", 0xB1: "±", 0xB3: "≥"},
    **{0xB4: "×", 0xB6: "∂", 0xB7: "•", 0xB8: "÷", 0xB9: "≠", 0xBA: "≡", 0xBB: "≈", 0xBC: "…", 0xC7: "∩", 0xC8: "∪"},
    **{0xCE: "∈", 0xD0: "∠", 0xD1: "∇", 0xD2: "®", 0xD3: "©", 0xD4: "™", 0xD5: "∏", 0xD6: "√", 0xDE: "⇒", 0xE5: "∑"},
    **{0xF2: "∫", 0x22: "∀", 0x24: "∃", 0x2D: "−", 0x40: "≅", 0x5E: "⊥", 0x7E: "∼"},
}
_PICTURES = {
    **{0x6C: "●", 0x6E: "■", 0x6F: "□", 0x71: "❑", 0x76: "❖", 0xA7: "▪", 0xA8: "□", 0xD8: "➢", 0xDF: "←", 0xE0: "→"},
    **{0xE1: "↑", 0xE2: "↓", 0xE8: "➔", 0xF0: "⇨", 0xFB: "✗", 0xFC: "✓", 0xFD: "☒", 0xFE: "☑"},
    **{0x4A: "☺", 0x4C: "☹"},
}


#: What hangs on a paragraph, (kind, value): footnote, endnote and comment (an id), box (an element), said (a text),
#: chart and diagram (a relationship id).
Hanging = tuple[str, Element]


class Words:
    """Reads paragraphs one after the other; a field may begin in one and end in another."""

    def __init__(self, styles: Styles, *, page_numbers: bool = True) -> None:
        self._styles = styles
        self._page_numbers = page_numbers
        self._fields: list[list[str]] = []  # [instruction so far, "code" or "result"] of each open field
        self._unseen = False
        self._hidden = False
        self._pieces: list[str] = []
        self._after: list[Hanging] = []

    def read(self, paragraph: Element, *, hidden: bool = False) -> tuple[str, list[Hanging]]:
        """The text of a paragraph and what belongs after it; `hidden` is what its style says of its runs."""
        self._pieces, self._after = [], []
        self._hidden = hidden
        self._walk(paragraph)
        for field in self._fields:
            if field[1] == "code":  # one without a separator must not swallow the rest of the document
                field[1] = "result"
        self._see()
        return "".join(self._pieces), self._after

    def _walk(self, parent: Element) -> None:
        for child in parent:
            tag = child.tag
            if tag == W + "r":
                self._run(child)
            elif tag in _WRAPPERS:
                self._walk(child)
            elif tag == W + "sdt":
                for content in child.iterfind(W + "sdtContent"):
                    self._walk(content)
            elif tag == W + "fldSimple":
                if self._wanted(child.get(W + "instr", "")):
                    self._walk(child)
            elif tag == MC + "AlternateContent":
                for each in chosen(child):
                    self._walk([each])
            elif tag in (M + "oMath", M + "oMathPara") and not self._unseen:
                self._pieces.append("".join(formula(child)))

    def _run(self, run: Element) -> None:
        properties = run.find(W + "rPr")
        hidden = self._hidden if properties is None else self._is_hidden(properties)
        for child in run:
            tag = child.tag
            if tag == W + "fldChar":
                self._field(child.get(W + "fldCharType"))
            elif tag == W + "instrText":
                if self._fields:
                    self._fields[-1][0] += child.text or ""
            elif hidden or self._unseen:
                continue
            elif tag == W + "t":
                self._pieces.append(child.text or "")
            elif tag in _CHARACTERS:
                self._pieces.append(_CHARACTERS[tag])
            elif tag != W + "rPr":
                self._other(child, tag)

    def _other(self, child: Element, tag: str) -> None:
        if tag == W + "sym":
            self._pieces.append(symbol(child.get(W + "font", ""), child.get(W + "char", "")))
        elif tag in _NOTES:
            self._after.append((_NOTES[tag], child.get(W + "id")))
        elif tag in (W + "drawing", W + "pict", W + "object"):
            self._after.extend(_drawn(child))
        elif tag == W + "ruby":
            self._walk(child)
        elif tag == MC + "AlternateContent":
            for each in chosen(child):
                self._other(each, each.tag) if each.tag != W + "r" else self._run(each)
        elif tag == W + "t":
            self._pieces.append(child.text or "")

    def _is_hidden(self, properties: Element) -> bool:
        own = properties.find(W + "vanish")
        if own is not None:
            return is_on(own)
        style = properties.find(W + "rStyle")
        return self._hidden or (style is not None and self._styles.get(style.get(W + "val")).hidden)

    def _field(self, kind: str | None) -> None:
        if kind == "begin":
            del self._fields[:-MAX_FIELDS]
            self._fields.append(["", "code"])
        elif kind == "separate" and self._fields:
            self._fields[-1][1] = "result" if self._wanted(self._fields[-1][0]) else "unwanted"
        elif kind == "end" and self._fields:
            self._fields.pop()
        self._see()

    def _see(self) -> None:
        self._unseen = any(state != "result" for _, state in self._fields)

    def _wanted(self, instruction: str) -> bool:
        return self._page_numbers or instruction.split(maxsplit=1)[:1] not in [[name] for name in _PAGE_FIELDS]


def _drawn(drawing: Element) -> Iterator[Hanging]:
    """What of a drawing goes after the paragraph: text boxes, charts, diagrams, the description of a picture."""
    stack = [drawing]
    while stack:
        element = stack.pop()
        if element.tag == W + "txbxContent":
            yield "box", element
            continue
        if element.tag == MC + "AlternateContent":
            stack.extend(reversed(list(chosen(element))))
            continue
        if element.tag in (WP + "inline", WP + "anchor"):
            if element.find(f".//{PIC}pic") is not None and (said := description(element.find(WP + "docPr"))):
                yield "said", said
        elif element.tag == V + "textpath" and element.get("string"):
            yield "said", element.get("string")
        elif element.tag == C + "chart":
            yield "chart", element.get(R + "id")
        elif element.tag == DGM + "relIds":
            yield "diagram", element.get(R + "dm")
        stack.extend(reversed(element))


def symbol(font: str, code: str) -> str:
    """The character that a w:sym shows; a bullet for a picture that has no meaning of its own."""
    try:
        number = int(code, 16)
    except ValueError:
        return ""
    low = number - 0xF000 if 0xF000 <= number < 0xF100 else number
    if font.lower().startswith("symbol"):
        return _SYMBOL.get(low, chr(low) if 0x20 <= low < 0x7F else "")
    if font.lower().startswith(("wingdings", "webdings")):
        return _PICTURES.get(low, "") if font.lower() == "wingdings" else ""
    if 0xF020 <= number < 0xF100:
        return chr(low)
    return "" if 0xE000 <= number < 0xF900 or number > 0xFFFF else chr(number)
