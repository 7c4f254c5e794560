"""PowerPoint presentations: slides as pages, shapes in reading order, notes and comments after them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pptx
import pytest
from pptx.chart.data import CategoryChartData, XyChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from apps.documents.parsing import Parsed, parse
from tests.support.parsed import code_of, shown

TITLE, TITLE_AND_CONTENT, TITLE_ONLY, BLANK = 0, 1, 5, 6
KIND = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/"
A = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
P = 'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'


def saved(made: pptx.presentation.Presentation) -> bytes:
    buffer = io.BytesIO()
    made.save(buffer)
    return buffer.getvalue()


def rewritten(data: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The package once `change` has changed its parts."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def linked(parts: dict[str, bytes], source: str, key: str, kind: str, target: str) -> None:
    link = f'<Relationship Id="{key}" Type="{KIND}{kind}" Target="{target}"/></Relationships>'
    parts[source] = parts[source].replace(b"</Relationships>", link.encode())


def box(slide: pptx.slide.Slide, text: str, left: float, top: float) -> None:
    slide.shapes.add_textbox(Inches(left), Inches(top), Inches(1), Inches(0.5)).text_frame.text = text


def test_a_slide_is_a_page_its_title_a_heading_and_its_bullets_a_list() -> None:
    made = pptx.Presentation()
    first = made.slides.add_slide(made.slide_layouts[TITLE])
    first.shapes.title.text = "Harbour\vreport"
    first.placeholders[1].text = "for the town"
    second = made.slides.add_slide(made.slide_layouts[TITLE_AND_CONTENT])
    second.shapes.title.text = "Berths"
    frame = second.placeholders[1].text_frame
    frame.text = "three berths"
    for text, level in (("one is closed", 1), ("two are open", 0)):
        paragraph = frame.add_paragraph()
        paragraph.text, paragraph.level = text, level
    parsed = parse(saved(made))
    assert shown(parsed) == [
        ("heading", "Harbour report"),
        ("paragraph", "for the town"),
        ("heading", "Berths"),
        ("list", "- three berths\n  - one is closed\n- two are open"),
    ]
    assert [block.page for block in parsed.blocks] == [1, 1, 2, 2]
    assert (parsed.title, parsed.parser) == ("Harbour report", "pptx/1")


def test_shapes_are_read_from_top_to_bottom_and_left_to_right_with_the_title_first() -> None:
    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[TITLE_ONLY])
    box(slide, "third", 5, 3.02)
    box(slide, "second", 1, 3.1)
    box(slide, "above the title", 1, 0)
    box(slide, "last", 1, 5)
    slide.shapes.title.text = "Title"
    assert [text for _, text in shown(parse(saved(made)))] == ["Title", "above the title", "second", "third", "last"]


def test_a_slide_without_a_title_has_no_heading_and_an_empty_deck_is_empty() -> None:
    made = pptx.Presentation()
    assert code_of(saved(made)) == "empty"
    slide = made.slides.add_slide(made.slide_layouts[BLANK])
    assert code_of(saved(made)) == "empty"
    box(slide, "alone", 1, 1)
    assert shown(parse(saved(made))) == [("paragraph", "alone")]


def test_groups_are_read_in_place_and_hidden_shapes_are_not() -> None:
    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[BLANK])
    box(slide, "below", 1, 5)
    group = slide.shapes.add_group_shape()
    inner = group.shapes.add_group_shape()
    for place, text, into in ((2, "grouped second", group), (1, "grouped first", inner)):
        into.shapes.add_textbox(Inches(1), Inches(place), Inches(1), Inches(1)).text_frame.text = text
    box(slide, "hidden", 1, 6)
    slide.shapes[-1]._element.nvSpPr.cNvPr.set("hidden", "1")
    assert [text for _, text in shown(parse(saved(made)))] == ["grouped first", "grouped second", "below"]


def test_merged_cells_of_a_table_are_written_once() -> None:
    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[BLANK])
    table = slide.shapes.add_table(3, 3, Inches(1), Inches(1), Inches(4), Inches(2)).table
    for row in range(3):
        for column in range(3):
            table.cell(row, column).text = f"{row}{column}"
    table.cell(0, 0).merge(table.cell(0, 1))
    table.cell(1, 2).merge(table.cell(2, 2))
    assert shown(parse(saved(made))) == [("table", "00 01 |  | 02\n10 | 11 | 12 22\n20 | 21")]


def test_a_chart_is_its_title_and_a_table() -> None:
    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[BLANK])
    data = CategoryChartData()
    data.categories = ["May", "June"]
    data.add_series("ships", (4, 0.1 + 0.2))
    data.add_series("boats", (7, None))
    where = (Inches(1), Inches(1), Inches(4), Inches(3))
    chart = slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *where, data).chart
    chart.has_title = True
    chart.chart_title.text_frame.text = "Arrivals"
    points = XyChartData()
    points.add_series("depth").add_data_point(1.5, 2)
    slide.shapes.add_chart(XL_CHART_TYPE.XY_SCATTER, Inches(1), Inches(5), Inches(2), Inches(1), points)
    assert shown(parse(saved(made))) == [
        ("paragraph", "Arrivals"),
        ("table", " | ships | boats\nMay | 4 | 7\nJune | 0.3"),
        ("table", " | depth\n1.5 | 2"),
    ]


def test_notes_stand_after_the_slide_without_its_number() -> None:
    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[TITLE_ONLY])
    slide.shapes.title.text = "Title"
    slide.notes_slide.notes_text_frame.text = "Say hello.\nThen go on."
    assert shown(parse(saved(made))) == [("heading", "Title"), ("paragraph", "Notes: Say hello.\nThen go on.")]


def test_comments_name_their_authors_in_both_forms() -> None:
    made = pptx.Presentation()
    box(made.slides.add_slide(made.slide_layouts[BLANK]), "text", 1, 1)

    def add(parts: dict[str, bytes]) -> None:
        modern = 'xmlns:n="http://schemas.microsoft.com/office/powerpoint/2018/8/main"'
        body = f"<n:txBody><a:p {A}><a:r><a:t>%s</a:t></a:r></a:p></n:txBody>"
        parts["ppt/commentAuthors.xml"] = f'<p:cmAuthorLst {P}><p:cmAuthor id="0" name="Ann"/></p:cmAuthorLst>'.encode()
        parts["ppt/authors.xml"] = f'<n:authorLst {modern}><n:author id="{{B}}" name="Bob"/></n:authorLst>'.encode()
        parts["ppt/comments/c1.xml"] = (
            f'<p:cmLst {P}><p:cm authorId="0"><p:text>Older?</p:text></p:cm></p:cmLst>'.encode()
        )
        parts["ppt/comments/c2.xml"] = (
            f'<n:cmLst {modern}><n:cm authorId="{{B}}"><n:replyLst><n:reply authorId="{{C}}">{body % "Yes."}</n:reply>'
            f"</n:replyLst>{body % 'Newer?'}</n:cm></n:cmLst>"
        ).encode()
        linked(parts, "ppt/_rels/presentation.xml.rels", "a1", "commentAuthors", "commentAuthors.xml")
        linked(parts, "ppt/_rels/presentation.xml.rels", "a2", "authors", "authors.xml")
        linked(parts, "ppt/slides/_rels/slide1.xml.rels", "c1", "comments", "../comments/c1.xml")
        linked(parts, "ppt/slides/_rels/slide1.xml.rels", "c2", "comments", "../comments/c2.xml")

    assert [text for _, text in shown(parse(rewritten(saved(made), add)))] == [
        "text",
        "Comment (Ann): Older?",
        "Comment (Bob): Newer?",
        "Comment: Yes.",
    ]


def test_a_diagram_is_a_list_in_the_order_of_its_data() -> None:
    made = pptx.Presentation()
    box(made.slides.add_slide(made.slide_layouts[BLANK]), "text", 1, 1)
    dgm = 'xmlns:dgm="http://schemas.openxmlformats.org/drawingml/2006/diagram"'
    point = '<dgm:pt modelId="{}"><dgm:t><a:p><a:r><a:t>{}</a:t></a:r></a:p></dgm:t></dgm:pt>'.format
    link = '<dgm:cxn srcId="{}" destId="{}" srcOrd="{}"/>'.format
    data = (
        f'<dgm:dataModel {dgm} {A}><dgm:ptLst><dgm:pt modelId="0" type="doc"/>{point(3, "second")}{point(1, "first")}'
        f"{point(2, 'under first')}</dgm:ptLst><dgm:cxnLst>{link(0, 3, 1)}{link(0, 1, 0)}{link(1, 2, 0)}{link(2, 1, 0)}"
        "</dgm:cxnLst></dgm:dataModel>"
    )
    frame = (
        f'<p:graphicFrame {P}><p:xfrm><a:off {A} x="0" y="0"/></p:xfrm><a:graphic {A}><a:graphicData><dgm:relIds {dgm} '
        'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships" r:dm="d1"/></a:graphicData>'
        "</a:graphic></p:graphicFrame></p:spTree>"
    )

    def add(parts: dict[str, bytes]) -> None:
        parts["ppt/diagrams/data1.xml"] = data.encode()
        parts["ppt/slides/slide1.xml"] = parts["ppt/slides/slide1.xml"].replace(b"</p:spTree>", frame.encode())
        linked(parts, "ppt/slides/_rels/slide1.xml.rels", "d1", "diagramData", "../diagrams/data1.xml")

    assert shown(parse(rewritten(saved(made), add))) == [
        ("list", "- first\n  - under first\n- second"),
        ("paragraph", "text"),
    ]


@pytest.mark.parametrize(
    ("kind", "start", "lines"),
    [
        ("arabicPeriod", "1", "1. a\n2. b"),
        ("alphaLcParenR", "1", "a) a\nb) b"),
        ("romanUcParenBoth", "4", "(IV) a\n(V) b"),
        ("arabicPlain", "9", "9 a\n10 b"),
        ("unheardOf", "1", "1. a\n2. b"),
    ],
)
def test_numbered_paragraphs_have_their_numbers(kind: str, start: str, lines: str) -> None:
    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[BLANK])
    box(slide, "a\nb", 1, 1)
    for paragraph in slide.shapes[0].text_frame.paragraphs:
        numbered = paragraph._p.makeelement(f"{{{A[9:-1]}}}buAutoNum", {"type": kind, "startAt": start})
        paragraph._p.get_or_add_pPr().append(numbered)
    assert shown(parse(saved(made))) == [("list", lines)]


def test_footers_dates_and_numbers_of_slides_are_left_out() -> None:
    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[TITLE_ONLY])
    slide.shapes.title.text = "Title"
    for kind in ("ftr", "dt", "sldNum"):
        box(slide, f"a {kind}", 1, 1)
        place = slide.shapes[-1]._element.nvSpPr.nvPr
        place.append(place.makeelement(f"{{{P[9:-1]}}}ph", {"type": kind}))
    assert parse(saved(made)).text == "Title"


def test_a_missing_slide_becomes_a_note_and_a_missing_picture_nothing() -> None:
    made = pptx.Presentation()
    for text in ("one", "two"):
        box(made.slides.add_slide(made.slide_layouts[BLANK]), text, 1, 1)

    def lose(parts: dict[str, bytes]) -> None:
        del parts["ppt/slides/slide1.xml"]
        linked(parts, "ppt/slides/_rels/slide2.xml.rels", "x", "image", "../media/nothing.png")

    parsed = parse(rewritten(saved(made), lose))
    assert [(block.page, text) for block, (_, text) in zip(parsed.blocks, shown(parsed), strict=True)] == [(2, "two")]
    assert parsed.notes == ["Slide 1 could not be read."]


def test_the_strict_dialect_is_read_like_the_other() -> None:
    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[TITLE_ONLY])
    slide.shapes.title.text = "Strict"

    def strict(parts: dict[str, bytes]) -> None:
        for name, content in parts.items():
            for family in (b"presentationml", b"drawingml", b"officeDocument"):
                content = content.replace(
                    b"http://schemas.openxmlformats.org/" + family + b"/2006/",
                    b"http://purl.oclc.org/ooxml/" + family + b"/",
                )
            parts[name] = content

    assert shown(parse(rewritten(saved(made), strict))) == [("heading", "Strict")]


def test_right_to_left_and_east_asian_text_is_kept_as_it_is() -> None:
    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[TITLE_ONLY])
    slide.shapes.title.text = "港の報告"
    box(slide, "שלום עולם", 1, 4)
    assert [text for _, text in shown(parse(saved(made)))] == ["港の報告", "שלום עולם"]


def test_a_slide_listed_many_times_is_read_once() -> None:
    made = pptx.Presentation()
    box(made.slides.add_slide(made.slide_layouts[BLANK]), "once", 1, 1)

    def repeat(parts: dict[str, bytes]) -> None:
        xml = parts["ppt/presentation.xml"]
        start, end = xml.index(b"<p:sldId "), xml.index(b"</p:sldIdLst>")
        parts["ppt/presentation.xml"] = xml[:start] + xml[start:end] * 10_000 + xml[end:]

    assert parse(rewritten(saved(made), repeat)).text == "once"


def test_broken_packages_have_clear_codes() -> None:
    made = pptx.Presentation()
    box(made.slides.add_slide(made.slide_layouts[BLANK]), "text", 1, 1)
    whole: Parsed = parse(saved(made))
    assert whole.text == "text"
    data = saved(made)
    assert code_of(data[: len(data) // 2]) == "corrupt"
    assert code_of(rewritten(data, lambda parts: parts.update({"ppt/presentation.xml": b"<"}))) == "corrupt"
