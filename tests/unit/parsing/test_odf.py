"""OpenDocument texts and slides, zipped and flat, to text and blocks."""

from __future__ import annotations

import io
import zipfile

from lxml import etree
from odfdo import Document, Header, List, Paragraph, Table

from apps.documents.parsing import Parsed, parse
from apps.documents.parsing.office.odf import parse_flat
from tests.support.parsed import code_of, shown

ODF = "application/vnd.oasis.opendocument."
NAMESPACES = " ".join(
    f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for prefix, name in {
        **{name: name for name in ("office", "style", "text", "table", "presentation", "meta", "chart")},
        **{"draw": "drawing", "svg": "svg-compatible"},
    }.items()
)
NAMESPACES += ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xlink="http://www.w3.org/1999/xlink"'
NUMBERED = (
    '<text:list-style style:name="N"><text:list-level-style-number text:level="1" style:num-format="1"'
    ' style:num-suffix="."/><text:list-level-style-number text:level="2" style:num-format="a" style:num-suffix=")"/>'
    '<text:list-level-style-number text:level="3" style:num-format="i" text:display-levels="3"/></text:list-style>'
)


def content(body: str, styles: str = "", kind: str = "text") -> str:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><office:document-content {NAMESPACES}><office:automatic-styles>{styles}'
        f"</office:automatic-styles><office:body><office:{kind}>{body}</office:{kind}></office:body>"
        "</office:document-content>"
    )


def packed(files: dict[str, str], kind: str = "text") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, inside in {"mimetype": ODF + kind, **files}.items():
            archive.writestr(name, inside)
    return target.getvalue()


def read(body: str, styles: str = "", kind: str = "text", more: dict[str, str] | None = None) -> Parsed:
    tag = {"graphics": "drawing"}.get(kind, kind)
    return parse(packed({"content.xml": content(body, styles, tag), **(more or {})}, kind))


def blocks(body: str, styles: str = "") -> list[tuple[str, str]]:
    return shown(read(body, styles))


def p(text: str, style: str = "") -> str:
    return f'<text:p text:style-name="{style}">{text}</text:p>'


def items(*inside: str) -> str:
    return "".join(f"<text:list-item>{each}</text:list-item>" for each in inside)


def test_a_document_that_a_library_wrote() -> None:
    document = Document("text")
    document.body.clear()
    document.meta.title = "Its title"
    document.body.append(Header(1, "Head"))
    document.body.append(Paragraph("Some text."))
    document.body.append(List(["one", "two"]))
    table = Table("T", width=2, height=2)
    table.set_values([["a", "b"], ["c", "d"]])
    document.body.append(table)
    target = io.BytesIO()
    document.save(target)
    parsed = parse(target.getvalue(), filename="a.odt")
    assert shown(parsed) == [
        ("heading", "1. Head"),  # its template numbers them
        ("paragraph", "Some text."),
        ("list", "- one\n- two"),
        ("table", "a | b\nc | d"),
    ]
    assert (parsed.title, parsed.parser, parsed.media_type) == ("Its title", "odf/1", ODF + "text")


def test_headings_have_their_outline_level() -> None:
    parsed = read('<text:h text:outline-level="3">Deep</text:h><text:h>None</text:h>' + p("Name", "Title"))
    assert [(block.kind, block.level) for block in parsed.blocks] == [("heading", 3), ("heading", 1), ("heading", 1)]
    assert parsed.title == "Deep"


def test_headings_are_numbered_where_the_document_numbers_them() -> None:
    outline = (
        '<text:outline-style><text:outline-level-style text:level="1" style:num-format="1"/>'
        '<text:outline-level-style text:level="2" style:num-format="1" text:display-levels="2" style:num-suffix="."/>'
        "</text:outline-style>"
    )
    levels = (1, 2, 2, 1, 2, 3)
    body = "".join(f'<text:h text:outline-level="{level}">H</text:h>' for level in levels)
    styles = f"<office:document-styles {NAMESPACES}><office:styles>{outline}</office:styles></office:document-styles>"
    parsed = read(body, more={"styles.xml": styles})
    assert [text for _, text in shown(parsed)] == ["1 H", "1.1. H", "1.2. H", "2 H", "2.1. H", "H"]


def test_a_note_is_a_line_of_its_own_at_its_place_and_a_comment_follows_its_paragraph() -> None:
    note = (
        '<text:note text:note-class="footnote"><text:note-citation>1</text:note-citation><text:note-body>'
        "<text:p>The note.</text:p></text:note-body></text:note>"
    )
    comment = (
        "<office:annotation><dc:creator>Ann</dc:creator><dc:date>2020-01-01</dc:date><text:p>Why</text:p>"
        "<text:p>so?</text:p></office:annotation>"
    )
    assert blocks(p(f"One{note} sen{comment}tence.") + p("Next.")) == [
        ("paragraph", "One\nThe note.\nsentence."),
        ("paragraph", "Comment (Ann): Why\nso?"),
        ("paragraph", "Next."),
    ]


def test_white_space_is_read_as_the_format_means_it() -> None:
    body = p('a \n\t b<text:s text:c="3"/>c<text:tab/>d<text:line-break/>e<text:span>f</text:span>\n  g')
    assert blocks(body) == [("paragraph", "a b c d\nef g")]


def test_preformatted_paragraphs_are_one_block_of_code() -> None:
    styles = '<style:style style:name="P1" style:family="paragraph" style:parent-style-name="Preformatted_20_Text"/>'
    body = p("def f():", "P1") + p('<text:s text:c="4"/>pass', "P1") + p("", "P1") + p("f()", "P1") + p("Text.")
    assert blocks(body, styles) == [("code", "def f():\n    pass\n\nf()"), ("paragraph", "Text.")]


def test_deleted_and_hidden_text_and_indexes_are_left_out() -> None:
    styles = (
        '<style:style style:name="T1" style:family="text"><style:text-properties text:display="none"/></style:style>'
    )
    body = (
        "<text:tracked-changes><text:changed-region><text:deletion><text:p>gone</text:p></text:deletion>"
        "</text:changed-region></text:tracked-changes>"
        "<text:table-of-content><text:index-body><text:p>Head 1</text:p></text:index-body></text:table-of-content>"
        f'<text:section text:display="none">{p("hidden section")}</text:section>'
        f"<text:section>{p('shown')}</text:section>"
        + p('a<text:change text:change-id="x"/><text:span text:style-name="T1">secret</text:span>b')
        + p("<text:ruby><text:ruby-base>漢字</text:ruby-base><text:ruby-text>かんじ</text:ruby-text></text:ruby>")
    )
    assert blocks(body, styles) == [("paragraph", "shown"), ("paragraph", "ab"), ("paragraph", "漢字")]


def test_lists_count_as_their_style_says() -> None:
    deep = f"<text:list>{items(p('deep'))}</text:list>"
    inner = f"<text:list>{items(p('x') + deep, p('y'))}</text:list>"
    body = f'<text:list text:style-name="N">{items(p("one") + p("more") + inner, p("two"))}</text:list>' + p("Break.")
    body += f'<text:list text:style-name="N" text:continue-numbering="true">{items(p("three"))}</text:list>'
    body += f'<text:list text:style-name="N">{items(p("anew"))}</text:list>'
    assert blocks(body, NUMBERED) == [
        ("list", "1. one\n   more\n  a) x\n    1.a.i deep\n  b) y\n2. two"),
        ("paragraph", "Break."),
        ("list", "3. three\n1. anew"),
    ]


def test_a_list_that_is_split_at_a_deeper_level_goes_on_counting() -> None:
    def wrapped(*texts: str) -> str:
        return items(f"<text:list>{items(*map(p, texts))}</text:list>")

    body = f'<text:list text:style-name="N">{items(p("one"))}{wrapped("a", "b")}</text:list>'
    body += f"<text:list>{items(p('dash'))}</text:list>"
    body += f'<text:list text:style-name="N" text:continue-list="x">{wrapped("c")}{items(p("two"))}</text:list>'
    assert blocks(body, NUMBERED) == [("list", "1. one\n  a) a\n  b) b\n- dash\n  c) c\n2. two")]


def test_a_heading_in_a_list_is_a_heading_with_its_number() -> None:
    body = (
        f'<text:list text:style-name="N">{items("<text:h text:outline-level=&quot;2&quot;>Scope</text:h>")}</text:list>'
    )
    assert blocks(body.replace("&quot;", '"'), NUMBERED) == [("heading", "1. Scope")]


def test_items_without_a_marker_are_paragraphs() -> None:
    styles = '<text:list-style style:name="L"><text:list-level-style-bullet text:level="1"/></text:list-style>'
    assert blocks(f'<text:list text:style-name="L">{items(p("a"), "", p(""))}</text:list>', styles) == [
        ("paragraph", "a")
    ]


def test_numbers_are_written_in_letters_and_roman_as_far_as_they_reach() -> None:
    def numbered(form: str, start: int) -> str:
        styles = (
            f'<text:list-style style:name="L"><text:list-level-style-number text:level="1" style:num-format="{form}"'
            f' style:num-prefix="(" style:num-suffix=")" text:start-value="{start}"/></text:list-style>'
        )
        return read(f'<text:list text:style-name="L">{items(p("x"))}</text:list>', styles).text

    assert [numbered(*each) for each in (("a", 28), ("I", 1994), ("i", 4), ("A", 1), ("1", 9), ("i", 5000))] == [
        *("(bb) x", "(MCMXCIV) x", "(iv) x", "(A) x", "(9) x", "(5000) x")
    ]


def cell(text: str, attributes: str = "") -> str:
    return f"<table:table-cell {attributes}>{p(text)}</table:table-cell>"


def row(*cells: str, attributes: str = "") -> str:
    return f"<table:table-row {attributes}>{''.join(cells)}</table:table-row>"


def test_merged_cells_stand_once() -> None:
    covered = f"<table:covered-table-cell>{p('under')}</table:covered-table-cell>"
    body = row(cell("wide", 'table:number-columns-spanned="2"'), covered, cell("c")) + row(*map(cell, "def"))
    assert blocks(f"<table:table><table:table-header-rows>{body}</table:table-header-rows></table:table>") == [
        ("table", "wide |  | c\nd | e | f")
    ]


def test_repeated_cells_and_rows_are_bounded() -> None:
    many = 'table:number-columns-repeated="16384"'
    body = row(cell("a"), cell("b"), f"<table:table-cell {many}/>") + row(
        cell("x", many), cell("y"), attributes='table:number-rows-repeated="1048576"'
    )
    body += row(f"<table:table-cell {many}/>", attributes='table:number-rows-repeated="1048576"')
    parsed = read(f"<table:table>{body}</table:table>")
    assert parsed.text.startswith("a | b\na: x | b: x | x")
    assert len(parsed.text) < 1_000_000
    twice = row(cell("a", 'table:number-columns-repeated="2"'), cell("b"), attributes='table:number-rows-repeated="2"')
    assert blocks(f"<table:table>{twice}</table:table>") == [("table", "a | a | b\na | a | b")]


def test_a_table_for_layout_is_read_as_text() -> None:
    inner = f"<table:table>{row(cell('1'), cell('2'))}</table:table>"
    outer = row(f"<table:table-cell><text:h>Head</text:h>{inner}</table:table-cell>", cell("Side."))
    assert blocks(f"<table:table>{outer}</table:table>") == [
        ("heading", "Head"),
        ("table", "1 | 2"),
        ("paragraph", "Side."),
    ]
    assert blocks(f"<table:table>{row(cell('only'))}{row(cell('text'))}</table:table>")[1] == ("paragraph", "text")


def test_a_frame_in_a_sentence_follows_it() -> None:
    box = f"<draw:frame><draw:text-box>{p('In a box.')}</draw:text-box></draw:frame>"
    image = "<draw:frame><draw:image/><svg:title>Ship</svg:title><svg:desc>A ship at sea</svg:desc></draw:frame>"
    assert blocks(p(f"A {box}sen{image}tence.")) == [
        ("paragraph", "A sentence."),
        ("paragraph", "In a box."),
        ("paragraph", "A ship at sea"),
    ]


def test_a_formula_is_part_of_its_sentence_and_a_chart_follows_it() -> None:
    def frame(name: str) -> str:
        return f'<draw:frame><draw:object xlink:href="./{name}"/><draw:image xlink:href="./R/{name}"/></draw:frame>'

    formula = (
        '<math xmlns="http://www.w3.org/1998/Math/MathML"><semantics><mi>E</mi><annotation encoding="StarMath 5.0">'
        "E = m c^2</annotation></semantics></math>"
    )
    table = f"<table:table>{row(cell('a'), cell('1'))}</table:table>"
    chart = f"<chart:chart><chart:title>{p('Sales')}</chart:title>{table}</chart:chart>"
    more = {"F/content.xml": formula, "C/content.xml": content(chart, kind="chart"), "D/content.xml": "<broken"}
    parsed = read(p(f"As {frame('F')} says.{frame('C')}{frame('C')}{frame('D')}{frame('Gone')}"), more=more)
    assert [text for _, text in shown(parsed)] == ["As E = m c^2 says.", "Sales", "a | 1"]
    assert parsed.notes == ["An embedded object is damaged and was left out."]


def test_an_object_that_holds_itself_is_read_once() -> None:
    frame = '<draw:frame><draw:object xlink:href="./O"/></draw:frame>'
    parsed = read(p(f"Out {frame}"), more={"O/content.xml": content(p(f"In {frame}"))})
    assert [text for _, text in shown(parsed)] == ["Out", "In"]


def slide(*inside: str) -> str:
    return f"<draw:page>{''.join(inside)}</draw:page>"


def placed(text: str, kind: str = "", more: str = "") -> str:
    return f'<draw:frame presentation:class="{kind}" {more}><draw:text-box>{p(text)}</draw:text-box></draw:frame>'


def test_slides_are_pages_with_title_comments_and_notes() -> None:
    notes = f"<presentation:notes>{placed('7', 'page-number')}{placed('Say hello.', 'notes')}</presentation:notes>"
    comment = "<office:annotation><dc:creator>Ben</dc:creator><text:p>Too long</text:p></office:annotation>"
    shape = f"<draw:g><draw:custom-shape>{p('A shape')}</draw:custom-shape></draw:g>"
    prompt = placed("Click to add", "outline", 'presentation:placeholder="true"')
    first = slide(notes, comment, placed("Body"), placed("3", "page-number"), prompt, placed("Welcome", "title"), shape)
    parsed = read(first + slide(placed("Second")), kind="presentation")
    assert [(block.page, text) for block, (_, text) in zip(parsed.blocks, shown(parsed), strict=True)] == [
        *((1, text) for text in ("Welcome", "Body", "A shape", "Comment (Ben): Too long", "Notes: Say hello.")),
        (2, "Second"),
    ]
    assert (parsed.blocks[0].kind, parsed.blocks[0].level, parsed.title) == ("heading", 1, "Welcome")


def test_drawings_are_read_page_by_page() -> None:
    parsed = read(
        slide(f"<draw:rect>{p('A box')}</draw:rect>") + slide(f"<draw:line>{p('x')}</draw:line>"), kind="graphics"
    )
    assert [(block.page, block.kind) for block in parsed.blocks] == [(1, "paragraph"), (2, "paragraph")]


def test_a_flat_file_is_read_like_a_zipped_one() -> None:
    formula = '<math xmlns="http://www.w3.org/1998/Math/MathML"><mi>x</mi><mo>=</mo><mn>1</mn></math>'
    root = etree.fromstring(
        f"<office:document {NAMESPACES}><office:meta><dc:title>Flat</dc:title></office:meta><office:automatic-styles>"
        f'{NUMBERED}</office:automatic-styles><office:body><office:text><text:list text:style-name="N">'
        f"{items(p('one'))}"
        f"</text:list>{p(f'So <draw:frame><draw:object>{formula}</draw:object></draw:frame>.')}</office:text>"
        "</office:body></office:document>"
    )
    parsed = parse_flat(root, media_type=ODF + "text")
    assert shown(parsed) == [("list", "1. one"), ("paragraph", "So x = 1.")]
    assert (parsed.title, parsed.parser) == ("Flat", "odf/1")


def test_scripts_from_right_to_left_and_without_spaces_are_kept() -> None:
    assert blocks(p("שלום עולם") + p("中文<text:span>文本</text:span>")) == [
        ("paragraph", "שלום עולם"),
        ("paragraph", "中文文本"),
    ]


def test_an_encrypted_document_is_refused() -> None:
    manifest = '<manifest:manifest xmlns:manifest="urn:x"><manifest:encryption-data/></manifest:manifest>'
    data = packed({"content.xml": "\x01\x02", "META-INF/manifest.xml": manifest})
    assert code_of(data, filename="a.odt") == "encrypted"


def test_damaged_containers_and_contents_are_refused() -> None:
    assert code_of(packed({}), filename="a.odt") == "corrupt"
    assert code_of(packed({"content.xml": content(p("x"))})[:-30], filename="a.odt") == "corrupt"
    assert code_of(packed({"content.xml": content(p("x"))[:-30]}), filename="a.odt") == "malformed"
    assert code_of(packed({"content.xml": "<a>" * 5000}), filename="a.odt") == "malformed"
    assert code_of(packed({"content.xml": content(p(" "))}), filename="a.odt") == "empty"


def test_no_entity_is_fetched_or_expanded() -> None:
    evil = content(p("a&x;b")).replace("?>", '?><!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>', 1)
    assert parse(packed({"content.xml": evil})).text == "ab"


def test_a_long_document_takes_time_in_proportion() -> None:
    parsed = read("".join(p(f"Paragraph <text:span>{number}</text:span>") for number in range(20_000)))
    assert len(parsed.blocks) == 20_000
