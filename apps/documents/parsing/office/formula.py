"""Office mathematics (m:oMath) in a line of text."""

from __future__ import annotations

from collections.abc import Iterator

from apps.documents.parsing.office.ooxml import Element, W

M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"


def formula(math: Element) -> Iterator[str]:
    """A formula in a line: "(a+b)/c", "x^2", "√(x)", with the characters that stand in properties."""
    for child in math:
        name = child.tag.removeprefix(M) if isinstance(child.tag, str) else "rPr"  # an entity that was not resolved
        if name == "t":
            yield child.text or ""
        elif name == "f":
            yield f"{_part(child, 'num')}/{_part(child, 'den')}"
        elif name in ("sSup", "sSub", "sSubSup"):
            yield _inner(child, "e")
            yield _scripts(child)
        elif name == "rad":
            yield f"{_part(child, 'deg')}√{_part(child, 'e')}"
        elif name == "d":
            begin, end, between = (
                _mark(child, "d", *each) for each in (("begChr", "("), ("endChr", ")"), ("sepChr", "|"))
            )
            yield begin + between.join("".join(formula(each)) for each in child.iterfind(M + "e")) + end
        elif name == "nary":
            yield _mark(child, "nary", "chr", "∫")
            yield _scripts(child)
            yield from (" " + "".join(formula(each)) for each in child.iterfind(M + "e"))
        elif name in ("limLow", "limUpp"):
            yield _inner(child, "e")
            yield ("_" if name == "limLow" else "^") + _part(child, "lim")
        elif name == "func":
            yield f"{_inner(child, 'fName')} {_inner(child, 'e')}"
        elif name not in ("rPr", "ctrlPr") and child.tag not in (W + "del", W + "moveFrom"):
            yield from formula(child)


def _inner(element: Element, name: str) -> str:
    part = element.find(M + name)
    return "" if part is None else "".join(formula(part)).strip()


def _scripts(element: Element) -> str:
    scripts = (("_", _part(element, "sub")), ("^", _part(element, "sup")))
    return "".join(mark + text for mark, text in scripts if text)


def _part(element: Element, name: str) -> str:
    """A part of a formula, in parentheses where it is more than a letter or a number."""
    text = _inner(element, name)
    return text if len(text) < 2 or text.replace(".", "").isdecimal() else f"({text})"


def _mark(element: Element, name: str, mark: str, usual: str) -> str:
    found = element.find(f"{M}{name}Pr/{M}{mark}")
    return usual if found is None else found.get(M + "val", "")
