"""What Word, PowerPoint and Excel draw alike: charts, diagrams (SmartArt), and the descriptions of pictures."""

from __future__ import annotations

import re

from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.office.formula import formula
from apps.documents.parsing.office.ooxml import MC, A, Element, Package, chosen, figure

_SCHEMAS = "http://schemas.openxmlformats.org/drawingml/2006/"
C = f"{{{_SCHEMAS}chart}}"
DGM = f"{{{_SCHEMAS}diagram}}"
PIC = f"{{{_SCHEMAS}picture}}"

A14_MATH = "{http://schemas.microsoft.com/office/drawing/2010/main}m"

MAX_HOLES = 50  # for each value of a series: what a chart says of itself is not to be believed
MAX_DEPTH = 8  # of a diagram's levels
_DECORATIVE = "{http://schemas.microsoft.com/office/drawing/2017/decorative}decorative"
_AUTOMATIC = re.compile(
    r"\s*((description )?(automatically )?generated( with .*)?|ai-generated content may be incorrect\.?)\Z",
    re.IGNORECASE,
)
_NO_DESCRIPTION = re.compile(
    r"\S*\.(png|jpe?g|gif|bmp|tiff?|svg|emf|wmf|webp|ico)\b.*|https?://\S*|\S*[/\\]\S*"
    r"|(picture|image|img|grafik|bild|photo|graphic|logo|shape|text ?box|rectangle|chart|diagram|icon)?[\s\d_()-]*",
    re.IGNORECASE,
)


def description(properties: Element | None) -> str:
    """The alternative text of a drawing's properties (wp:docPr, p:cNvPr); "" unless somebody described it in words."""
    if properties is None or properties.get("hidden") in ("1", "true"):
        return ""
    decorative = next(properties.iter(_DECORATIVE), None)
    if decorative is not None and decorative.get("val") in ("1", "true"):
        return ""
    text = inline(_AUTOMATIC.sub("", inline(properties.get("descr") or "")))
    few = " " not in text and text.isascii()
    return "" if few or _NO_DESCRIPTION.fullmatch(text) else text


def text_of(paragraph: Element) -> str:
    """The text of an a:p: runs, fields except the slide's number, formulas, a newline for each break."""
    pieces = []
    for child in paragraph:
        if child.tag == f"{A}r" or (child.tag == f"{A}fld" and child.get("type") != "slidenum"):
            pieces.append(child.findtext(f"{A}t") or "")
        elif child.tag == f"{A}br":
            pieces.append("\n")
        elif child.tag == f"{MC}AlternateContent":
            pieces.extend(map(text_of, ([each] for each in chosen(child))))
        elif child.tag == A14_MATH:
            pieces.extend(formula(child))
    return "".join(pieces)


def add_chart(built: Builder, package: Package, name: str | None) -> None:
    """Title and axis titles of a chart as paragraphs, its series as a table with a row per category."""
    root = package.part(name)
    if root is None:
        return
    for title in root.iter(f"{C}title"):
        built.paragraph("\n".join(map(text_of, title.iter(f"{A}p"))))
    plots = root.find(f"{C}chart/{C}plotArea")
    series = [] if plots is None else list(plots.iter(f"{C}ser"))
    # A plot of another kind, or on the second axis, often has the same categories: then it is the same table.
    tables: list[tuple[list[str], list[tuple[str, list[str]]]]] = []
    for each in series:
        categories = _categories(each)
        if not tables or (categories and categories != tables[-1][0]):
            tables.append((categories, []))
        values = each.find(f"{C}val")
        values = each.find(f"{C}yVal") if values is None else values
        tables[-1][1].append((" ".join(_points(each.find(f"{C}tx"))), _points(values)))
    for categories, columns in tables:
        count = max(len(categories), *(len(values) for _, values in columns))
        rows = [["", *(label for label, _ in columns)]] if any(label for label, _ in columns) else []
        rows += [[_at(categories, at), *(_at(values, at) for _, values in columns)] for at in range(count)]
        built.table(rows)


def _at(values: list[str], index: int) -> str:
    return values[index] if index < len(values) else ""


def _categories(series: Element) -> list[str]:
    found = series.find(f"{C}cat")
    found = series.find(f"{C}xVal") if found is None else found
    if found is None:
        return []
    levels = [_cached(level) for level in found.iter(f"{C}lvl")]
    if not levels:
        return _points(found)
    size = max(map(len, levels))
    return [" ".join(filter(None, (_at(level, at) for level in reversed(levels)))) for at in range(size)]


def _points(data: Element | None) -> list[str]:
    """The values of a series, in order and with holes as ""; of a name, its words."""
    if data is None:
        return []
    for cache in data.iter(f"{C}strCache", f"{C}numCache", f"{C}strLit", f"{C}numLit"):
        return _cached(cache)
    literal = data.find(f"{C}v")
    return [literal.text or ""] if literal is not None else []


def _cached(cache: Element) -> list[str]:
    points: dict[int, str] = {}
    most = len(cache) * MAX_HOLES
    for at, point in enumerate(cache.iterfind(f"{C}pt")):
        index = point.get("idx", "")
        value = point.findtext(f"{C}v") or ""
        place = int(index) if index.isdecimal() else at
        if place < most:
            points[place] = _shown(value) if cache.tag in (f"{C}numCache", f"{C}numLit") else value
    return [points.get(at, "") for at in range(max(points, default=-1) + 1)]


def _shown(value: str) -> str:
    try:
        return figure(float(value))
    except ValueError:
        return value


def add_diagram(built: Builder, package: Package, name: str | None) -> None:
    """The words of a diagram as a list, in the order and at the depth of its data model."""
    root = package.part(name)
    if root is None:
        return
    texts = {}
    for point in root.iter(f"{DGM}pt"):
        if point.get("type", "node") in ("node", "asst"):
            texts[point.get("modelId")] = "\n".join(map(text_of, point.iter(f"{A}p")))
    children: dict[str, list[tuple[int, str]]] = {}
    below = set()
    for link in root.iter(f"{DGM}cxn"):
        source, target = link.get("srcId"), link.get("destId")
        if link.get("type", "parOf") == "parOf" and target in texts:
            order = link.get("srcOrd", "0")
            children.setdefault(source, []).append((int(order) if order.isdecimal() else 0, target))
            if source in texts:
                below.add(target)
    roots = [target for source in children if source not in texts for _, target in sorted(children[source])]
    items = []
    seen = set()
    stack = [(0, point) for point in reversed([*roots, *(each for each in texts if each not in below), *texts])]
    while stack:
        depth, point = stack.pop()
        if point in seen:
            continue
        seen.add(point)
        if texts[point].strip():
            items.append((depth, "-", texts[point]))
        following = sorted(children.get(point, ()), reverse=True)
        stack += [(min(depth + 1, MAX_DEPTH), target) for _, target in following]
    built.items(items)
