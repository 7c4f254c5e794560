"""Word documents: what is read, in which order, and what is left out."""

from __future__ import annotations

import io
import time
import zipfile

import docx
import pytest
from docx.enum.section import WD_ORIENT
from docx.oxml.ns import qn

from apps.documents.parsing import Parsed, parse
from apps.documents.parsing.numerals import formatted
from apps.documents.parsing.office.docx_text import symbol
from tests.support.parsed import code_of, shown

SCHEMAS = "http://schemas.openxmlformats.org/"
NAMES = (
    f'xmlns:w="{SCHEMAS}wordprocessingml/2006/main" xmlns:r="{SCHEMAS}officeDocument/2006/relationships" '
    f'xmlns:m="{SCHEMAS}officeDocument/2006/math" xmlns:mc="{SCHEMAS}markup-compatibility/2006" '
    f'xmlns:wp="{SCHEMAS}drawingml/2006/wordprocessingDrawing" xmlns:a="{SCHEMAS}drawingml/2006/main" '
    f'xmlns:pic="{SCHEMAS}drawingml/2006/picture" xmlns:c="{SCHEMAS}drawingml/2006/chart" '
    'xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape" '
    'xmlns:v="urn:schemas-microsoft-com:vml"'
)
MAIN = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
KIND = f"{SCHEMAS}officeDocument/2006/relationships/"


def packed(parts: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def relations(**targets: str) -> str:
    links = "".join(
        f'<Relationship Id="{key}" Type="{KIND}{key.rstrip("0123456789")}" Target="{target}"/>'
        for key, target in targets.items()
    )
    return f'<Relationships xmlns="{SCHEMAS}package/2006/relationships">{links}</Relationships>'


def document(body: str, links: dict[str, str] | None = None, **parts: str) -> bytes:
    """A package with this body and these parts of the folder word; `links` are further relationships."""
    targets = {name: f"{name}.xml" for name in parts} | (links or {})
    return packed(
        {
            "[Content_Types].xml": f'<Types><Override PartName="/word/document.xml" ContentType="{MAIN}"/></Types>',
            "_rels/.rels": relations(officeDocument="word/document.xml"),
            "word/_rels/document.xml.rels": relations(**targets),
            "word/document.xml": f"<w:document {NAMES}><w:body>{body}</w:body></w:document>",
            **{f"word/{name}.xml": content for name, content in parts.items()},
        }
    )


def read(body: str, links: dict[str, str] | None = None, **parts: str) -> Parsed:
    return parse(document(body, links, **parts))


def p(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def item(text: str, level: int = 0, list_id: int = 1) -> str:
    return p(text, f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{list_id}"/></w:numPr>')


def numbering(*levels: tuple[str, str], nums: str = "") -> str:
    own = "".join(
        f'<w:lvl w:ilvl="{at}"><w:start w:val="1"/><w:numFmt w:val="{form}"/><w:lvlText w:val="{text}"/></w:lvl>'
        for at, (form, text) in enumerate(levels)
    )
    nums = nums or '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'
    return f'<w:numbering {NAMES}><w:abstractNum w:abstractNumId="0">{own}</w:abstractNum>{nums}</w:numbering>'


def saved(made: docx.document.Document) -> bytes:
    buffer = io.BytesIO()
    made.save(buffer)
    return buffer.getvalue()


def test_headings_paragraphs_lists_and_tables_of_python_docx_come_in_order() -> None:
    made = docx.Document()
    made.add_heading("Harbour", 0)
    made.add_heading("Berths", 1)
    made.add_paragraph("There are three berths.")
    made.add_paragraph("first", style="List Number")
    made.add_paragraph("second", style="List Number")
    made.add_paragraph("a dot", style="List Bullet")
    table = made.add_table(2, 2)
    for cell, text in zip(table._cells, ["item", "price", "berth", "20"], strict=True):
        cell.text = text
    made.add_heading("Prices", 2)
    parsed = parse(saved(made))
    assert shown(parsed) == [
        ("heading", "Harbour"),
        ("heading", "Berths"),
        ("paragraph", "There are three berths."),
        ("list", "1. first\n2. second\n- a dot"),
        ("table", "item | price\nberth | 20"),
        ("heading", "Prices"),
    ]
    assert [block.level for block in parsed.blocks if block.level] == [1, 1, 2]
    assert (parsed.parser, parsed.title) == ("docx/1", "Harbour")


def test_the_title_is_the_properties_one_unless_a_program_gave_it() -> None:
    made = docx.Document()
    made.add_heading("A plan", 1)
    made.core_properties.title = "The grand plan"
    assert parse(saved(made)).title == "The grand plan"
    made.core_properties.title = "Microsoft Word - plan_v2.doc"
    assert parse(saved(made)).title == "A plan"


def test_headings_are_found_by_outline_level_and_by_the_styles_they_are_based_on() -> None:
    styles = (
        f"<w:styles {NAMES}>"
        '<w:style w:type="paragraph" w:styleId="berschrift2"><w:name w:val="heading 2"/></w:style>'
        '<w:style w:type="paragraph" w:styleId="Own"><w:name w:val="Own"/><w:basedOn w:val="berschrift2"/></w:style>'
        '<w:style w:type="paragraph" w:styleId="Loop"><w:name w:val="L"/><w:basedOn w:val="Loop"/></w:style>'
        '<w:style w:type="paragraph" w:styleId="Deep"><w:name w:val="D"/><w:pPr><w:outlineLvl w:val="2"/></w:pPr>'
        "</w:style>"
        "</w:styles>"
    )
    parsed = read(
        p("zwei", '<w:pStyle w:val="berschrift2"/>')
        + p("own", '<w:pStyle w:val="Own"/>')
        + p("three", '<w:pStyle w:val="Deep"/>')
        + p("one", '<w:outlineLvl w:val="0"/>')
        + p("body", '<w:pStyle w:val="Own"/><w:outlineLvl w:val="9"/>')
        + p("loop", '<w:pStyle w:val="Loop"/>'),
        styles=styles,
    )
    assert [(kind, text) for kind, text in shown(parsed)][3:] == [
        ("heading", "one"),
        ("paragraph", "body"),
        ("paragraph", "loop"),
    ]
    assert [block.level for block in parsed.blocks] == [2, 2, 3, 1, 0, 0]
    assert parsed.title == "one"


def test_a_heading_is_known_by_its_style_id_where_the_styles_are_missing() -> None:
    assert shown(read(p("Intro", '<w:pStyle w:val="Heading1"/>') + p("text"))) == [
        ("heading", "Intro"),
        ("paragraph", "text"),
    ]


def test_a_whole_page_in_a_heading_style_is_a_paragraph() -> None:
    assert shown(read(p("word " * 200, '<w:outlineLvl w:val="0"/>')))[0][0] == "paragraph"


def test_lists_count_in_their_formats_and_restart_below_a_new_item() -> None:
    levels = numbering(("decimal", "%1."), ("lowerLetter", "%2)"), ("lowerRoman", "(%3)"), ("decimal", "%1.%2.%4"))
    parsed = read(
        item("one") + item("a", 1) + item("i", 2) + item("b", 1) + item("two") + item("a again", 1) + item("deep", 3),
        numbering=levels,
    )
    assert shown(parsed) == [
        ("list", "1. one\n  a) a\n    (i) i\n  b) b\n2. two\n  a) a again\n      2.a.1 deep"),
    ]


def test_a_list_starts_again_where_its_numbering_says_so_and_goes_on_after_a_paragraph() -> None:
    nums = (
        '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'
        '<w:num w:numId="2"><w:abstractNumId w:val="0"/>'
        '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="5"/></w:lvlOverride></w:num>'
    )
    parsed = read(
        item("one") + p("between") + item("two") + item("five", 0, 2) + item("six", 0, 2),
        numbering=numbering(("decimal", "%1."), nums=nums),
    )
    assert [text for _, text in shown(parsed)] == ["1. one", "between", "2. two\n5. five\n6. six"]


def test_a_numbered_heading_keeps_its_number_and_an_unknown_list_is_text() -> None:
    body = item("Scope").replace("<w:numPr>", '<w:outlineLvl w:val="1"/><w:numPr>') + item("lost", 0, 99)
    assert shown(read(body, numbering=numbering(("upperRoman", "Part %1")))) == [
        ("heading", "Part I Scope"),
        ("paragraph", "lost"),
    ]


@pytest.mark.parametrize(
    ("number", "form", "text"),
    [
        (28, "lowerLetter", "bb"),
        (1994, "upperRoman", "MCMXCIV"),
        (10**11, "upperRoman", "100000000000"),
        (3, "decimalZero", "03"),
        (22, "ordinal", "22nd"),
        (12, "ordinal", "12th"),
        (21, "chineseCountingThousand", "二十一"),
        (10, "japaneseCounting", "十"),
        (3, "decimalEnclosedCircle", "③"),
        (7, "never heard of", "7"),
        (5, "bullet", ""),
        (2, "russianUpper", "Б"),
    ],
)
def test_numbers_are_written_in_the_format_of_the_list(number: int, form: str, text: str) -> None:
    assert formatted(number, form) == text


def test_notes_and_comments_stand_after_their_paragraph_and_never_in_it() -> None:
    body = (
        "<w:p><w:r><w:t>The crane</w:t></w:r><w:r><w:footnoteReference w:id='2'/></w:r>"
        "<w:r><w:t> turns</w:t></w:r><w:r><w:endnoteReference w:id='3'/><w:commentReference w:id='0'/></w:r>"
        "<w:r><w:t>.</w:t></w:r></w:p>" + p("Next.")
    )
    note = "<w:{0} w:id='{1}'>{2}{3}</w:{0}>"
    parsed = read(
        body,
        footnotes=f"<w:footnotes {NAMES}>{note.format('footnote', 2, p('Built 1901.'), p('Rebuilt.'))}</w:footnotes>",
        endnotes=f"<w:endnotes {NAMES}>{note.format('endnote', 3, p('See there.'), '')}</w:endnotes>",
        comments=f"<w:comments {NAMES}><w:comment w:id='0' w:author='Ann'>{p('Really?')}</w:comment></w:comments>",
    )
    assert [text for _, text in shown(parsed)] == [
        "The crane turns.",
        "Built 1901.\nRebuilt.",
        "See there.",
        "Comment (Ann): Really?",
        "Next.",
    ]


def test_a_note_is_written_once_and_a_note_about_itself_does_no_harm() -> None:
    reference = "<w:p><w:r><w:t>x</w:t><w:footnoteReference w:id='1'/></w:r></w:p>"
    notes = f"<w:footnotes {NAMES}><w:footnote w:id='1'>{reference.replace('>x<', '>note<')}</w:footnote></w:footnotes>"
    assert [text for _, text in shown(read(reference * 3, footnotes=notes))] == ["x", "note", "x", "x"]


def test_deleted_moved_and_hidden_text_is_left_out_and_inserted_text_is_kept() -> None:
    body = (
        "<w:p><w:del><w:r><w:delText>old </w:delText></w:r></w:del><w:ins><w:r><w:t>new </w:t></w:r></w:ins>"
        "<w:moveFrom><w:r><w:t>gone </w:t></w:r></w:moveFrom><w:moveTo><w:r><w:t>here </w:t></w:r></w:moveTo>"
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>secret </w:t></w:r>"
        "<w:r><w:rPr><w:vanish w:val='0'/></w:rPr><w:t>seen</w:t></w:r></w:p>"
        "<w:p><w:pPr><w:rPr><w:del/></w:rPr></w:pPr><w:r><w:t>One </w:t></w:r></w:p>" + p("sentence.")
    )
    assert [text for _, text in shown(read(body))] == ["new here seen", "One sentence."]


def test_text_hidden_by_its_style_is_left_out() -> None:
    styles = (
        f"<w:styles {NAMES}><w:style w:type='character' w:styleId='H'><w:name w:val='H'/><w:rPr><w:vanish/></w:rPr>"
        "</w:style><w:style w:type='paragraph' w:styleId='P'><w:name w:val='P'/><w:rPr><w:vanish/></w:rPr></w:style>"
        "</w:styles>"
    )
    run = "<w:p><w:r><w:rPr><w:rStyle w:val='H'/></w:rPr><w:t>no</w:t></w:r><w:r><w:t>yes</w:t></w:r></w:p>"
    assert read(run + p("never", '<w:pStyle w:val="P"/>'), styles=styles).text == "yes"


def field(instruction: str, result: str, *, separate: str = '<w:fldChar w:fldCharType="separate"/>') -> str:
    return (
        f'<w:r><w:fldChar w:fldCharType="begin"/><w:instrText>{instruction}</w:instrText>{separate}'
        f'<w:t>{result}</w:t><w:fldChar w:fldCharType="end"/></w:r>'
    )


def test_of_a_field_only_the_result_is_read() -> None:
    nested = (
        '<w:r><w:fldChar w:fldCharType="begin"/><w:instrText>IF </w:instrText></w:r>'
        + field("MERGEFIELD x", "inner")
        + '<w:r><w:fldChar w:fldCharType="separate"/><w:t> outer</w:t><w:fldChar w:fldCharType="end"/></w:r>'
    )
    simple = '<w:fldSimple w:instr="DATE"><w:r><w:t> today</w:t></w:r></w:fldSimple>'
    assert read(f"<w:p>{field('REF _x', 'see 3')}{nested}{simple}</w:p>").text == "see 3 outer today"


def test_a_field_that_is_never_closed_does_not_swallow_the_document() -> None:
    start = '<w:p><w:r><w:t>a</w:t><w:fldChar w:fldCharType="begin"/><w:instrText>X</w:instrText></w:r></w:p>'
    assert shown(read(start + p("b") + p("c"))) == [("paragraph", "a"), ("paragraph", "b"), ("paragraph", "c")]


def test_a_hundred_thousand_open_fields_take_no_time() -> None:
    start = time.monotonic()
    opened = '<w:p><w:r><w:fldChar w:fldCharType="begin"/></w:r></w:p>' * 100_000
    assert read(opened + p("end")).text == "end"
    assert time.monotonic() - start < 20


def test_tabs_breaks_hyphens_and_symbols_become_characters() -> None:
    run = (
        "<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>well</w:t><w:noBreakHyphen/><w:t>known co</w:t>"
        '<w:softHyphen/><w:t>op </w:t><w:sym w:font="Symbol" w:char="F061"/><w:sym w:font="Wingdings" w:char="F0FC"/>'
        "</w:r></w:p>"
    )
    assert read(run).text == "a b\nwell-known coop α✓"
    assert (symbol("Arial", "00E9"), symbol("Unknown", "F041"), symbol("Symbol", "junk")) == ("é", "A", "")


r = "<m:r><m:t>{}</m:t></m:r>".format


@pytest.mark.parametrize(
    ("formula", "line"),
    [
        (f"<m:f><m:num>{r('a+b')}</m:num><m:den>{r('c')}</m:den></m:f>", "(a+b)/c"),
        (f"<m:sSup><m:e>{r('x')}</m:e><m:sup>{r('2')}</m:sup></m:sSup>{r('=')}", "x^2="),
        (f"<m:sSubSup><m:e>{r('x')}</m:e><m:sub>{r('i')}</m:sub><m:sup>{r('ab')}</m:sup></m:sSubSup>", "x_i^(ab)"),
        (f"<m:rad><m:deg/><m:e>{r('y')}</m:e></m:rad>", "√y"),
        (f"<m:d><m:e>{r('z')}</m:e><m:e>{r('w')}</m:e></m:d>", "(z|w)"),
        (f"<m:d><m:dPr><m:begChr m:val='['/><m:endChr m:val=']'/></m:dPr><m:e>{r('z')}</m:e></m:d>", "[z]"),
        (
            f"<m:nary><m:naryPr><m:chr m:val='∑'/></m:naryPr><m:sub>{r('k=0')}</m:sub><m:sup>{r('n')}</m:sup>"
            f"<m:e>{r('k')}</m:e></m:nary>",
            "∑_(k=0)^n k",
        ),
        (f"<m:func><m:fName>{r('cos')}</m:fName><m:e>{r('x')}</m:e></m:func>", "cos x"),
        (f"<m:limLow><m:e>{r('lim')}</m:e><m:lim>{r('n')}</m:lim></m:limLow>", "lim_n"),
        ("<m:f><m:num/></m:f>", "/"),
    ],
)
def test_formulas_are_read_in_a_line(formula: str, line: str) -> None:
    assert read(f"<w:p><w:r><w:t>So </w:t></w:r><m:oMath>{formula}</m:oMath></w:p>").text == f"So {line}"


BOX = "<w:txbxContent>{}</w:txbxContent>"
SHAPE = "<w:drawing><wp:anchor><wps:wsp><wps:txbx>{}</wps:txbx></wps:wsp></wp:anchor></w:drawing>"


def test_a_text_box_is_read_once_after_its_paragraph() -> None:
    box = BOX.format(p("in the box"))
    choice = f'<mc:Choice Requires="wps">{SHAPE.format(box)}</mc:Choice>'
    fallback = f"<mc:Fallback><w:pict><v:textbox>{box}</v:textbox></w:pict></mc:Fallback>"
    both = f"<w:r><mc:AlternateContent>{choice}{fallback}</mc:AlternateContent></w:r>"
    old = f"<w:r><mc:AlternateContent>{fallback}</mc:AlternateContent></w:r>"
    body = f"<w:p><w:r><w:t>around </w:t></w:r>{both}<w:r><w:t>it</w:t></w:r></w:p><w:p>{old}</w:p>"
    assert [text for _, text in shown(read(body))] == ["around it", "in the box", "in the box"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("A crane lifts a container onto the quay", True),
        ("港口的起重机", True),
        ("photo.png", False),
        ("Picture 3", False),
        ("Description automatically generated", False),
        ("AI-generated content may be incorrect.", False),
        ("", False),
    ],
)
def test_only_a_real_description_of_a_picture_is_kept(said: str, kept: bool) -> None:
    picture = f'<w:drawing><wp:inline><wp:docPr id="1" descr="{said}"/><pic:pic/></wp:inline></w:drawing>'
    texts = [text for _, text in shown(read(p("Text.") + f"<w:p><w:r>{picture}</w:r></w:p>"))]
    assert texts == (["Text.", said] if kept else ["Text."])


def cell(text: str, properties: str = "") -> str:
    return f"<w:tc><w:tcPr>{properties}</w:tcPr>{text if text.startswith('<') else p(text)}</w:tc>"


def table(*rows: str) -> str:
    return "<w:tbl>" + "".join(f"<w:tr>{row}</w:tr>" for row in rows) + "</w:tbl>"


def test_merged_cells_are_written_once() -> None:
    body = table(
        cell("wide", '<w:gridSpan w:val="2"/>') + cell("c"),
        cell("tall", '<w:vMerge w:val="restart"/>') + cell("e") + cell("f"),
        cell("hidden", "<w:vMerge/>") + cell("h") + cell("i"),
        '<w:trPr><w:gridBefore w:val="1"/></w:trPr>' + cell("k") + cell("l"),
    )
    assert read(body).text == "wide |  | c\ntall | e | f\n | h | i\n | k | l"


def test_a_table_in_a_cell_is_text_of_the_cell_and_its_list_keeps_its_markers() -> None:
    inner = table(cell("x") + cell("y"))
    body = table(cell(p("see") + inner + p("end")) + cell(item("one") + item("two")), cell("a") + cell("b"))
    assert shown(read(body, numbering=numbering(("decimal", "%1.")))) == [
        ("table", "see x y end | 1. one 2. two\na | b")
    ]


def test_a_frame_of_one_cell_and_a_table_for_layout_are_read_as_ordinary_text() -> None:
    heading = p("Skills", '<w:outlineLvl w:val="1"/>')
    body = table(cell(heading + p("Sailing"))) + table(cell("left") + cell(heading + p("Rowing")))
    assert [kind for kind, _ in shown(read(body))] == ["heading", "paragraph", "paragraph", "heading", "paragraph"]


def test_deleted_rows_and_deleted_cells_are_left_out_and_controls_around_rows_are_not() -> None:
    row = f"<w:sdt><w:sdtContent><w:tr>{cell('in a control')}{cell('b')}</w:tr></w:sdtContent></w:sdt>"
    body = f"<w:tbl><w:tr><w:trPr><w:del/></w:trPr>{cell('gone')}{cell('too')}</w:tr>{row}</w:tbl>"
    assert read(body).text == "in a control | b"


def test_links_controls_and_smart_tags_are_part_of_the_sentence() -> None:
    run = "<w:r><w:t>{}</w:t></w:r>".format
    body = (
        f"<w:p>{run('Visit ')}<w:hyperlink r:id='x'>{run('the site')}</w:hyperlink>{run(' of ')}"
        f"<w:smartTag>{run('Oslo')}</w:smartTag><w:sdt><w:sdtContent>{run(' now')}</w:sdtContent></w:sdt></w:p>"
    )
    block = f"<w:sdt><w:sdtContent>{p('in a control')}</w:sdtContent></w:sdt>"
    assert [text for _, text in shown(read(body + block))] == ["Visit the site of Oslo now", "in a control"]


def test_headers_and_footers_are_read_once_without_page_numbers() -> None:
    made = docx.Document()
    made.sections[0].header.paragraphs[0].text = "Port authority"
    footer = made.sections[0].footer.paragraphs[0]
    footer.text = "Confidential "
    element = footer._p.makeelement(qn("w:fldSimple"), {qn("w:instr"): " PAGE \\* MERGEFORMAT "})
    footer._p.append(element)
    element.append(footer._p.makeelement(qn("w:r")))
    element[0].append(element.makeelement(qn("w:t")))
    element[0][0].text = "17"
    made.add_paragraph("Body.")
    second = made.add_section(WD_ORIENT.PORTRAIT)  # type: ignore[arg-type]
    second.header.is_linked_to_previous = False
    second.header.paragraphs[0].text = "Port authority"
    second.first_page_header.paragraphs[0].text = "never shown"
    assert [text for _, text in shown(parse(saved(made)))] == ["Port authority", "Body.", "Confidential"]


def test_entries_of_the_contents_are_a_list_and_code_stays_together() -> None:
    styles = (
        f"<w:styles {NAMES}><w:style w:type='paragraph' w:styleId='V1'><w:name w:val='toc 1'/></w:style>"
        "<w:style w:type='paragraph' w:styleId='V2'><w:name w:val='toc 2'/></w:style>"
        "<w:style w:type='paragraph' w:styleId='C'><w:name w:val='HTML Preformatted'/></w:style></w:styles>"
    )
    entry = "<w:p><w:pPr><w:pStyle w:val='{}'/></w:pPr><w:r><w:t>{}</w:t></w:r></w:p>".format
    body = entry("V1", "Intro 1") + entry("V2", "Why 2") + entry("C", "def f():") + entry("C", "    return 1")
    assert shown(read(body, styles=styles)) == [("list", "Intro 1\n  Why 2"), ("code", "def f():\n    return 1")]


def test_an_initial_belongs_to_its_word() -> None:
    assert read(p("O", '<w:framePr w:dropCap="drop"/>') + p("nce upon a time")).text == "Once upon a time"


def test_a_chart_is_a_table_of_its_series() -> None:
    def cache(kind: str, *values: str) -> str:
        points = "".join(f'<c:pt idx="{at}"><c:v>{value}</c:v></c:pt>' for at, value in enumerate(values))
        return f"<c:{kind}Ref><c:{kind}Cache>{points}</c:{kind}Cache></c:{kind}Ref>"

    categories = f"<c:cat>{cache('str', 'May', 'June')}</c:cat>"
    series = "".join(
        f"<c:ser><c:tx>{cache('str', name)}</c:tx>{categories}<c:val>{cache('num', *values)}</c:val></c:ser>"
        for name, values in (("ships", ("4", "0.30000000000000004")), ("boats", ("7.0", "9")))
    )
    title = "<c:title><c:tx><c:rich><a:p><a:r><a:t>Arrivals</a:t></a:r></a:p></c:rich></c:tx></c:title>"
    plot = f"<c:plotArea><c:bar>{series}</c:bar></c:plotArea>"
    chart = f"<c:chartSpace {NAMES}><c:chart>{title}{plot}</c:chart></c:chartSpace>"
    body = '<w:p><w:r><w:drawing><wp:inline><c:chart r:id="chart1"/></wp:inline></w:drawing></w:r></w:p>'
    assert shown(read(body * 2, {"chart1": "charts/c1.xml"}, **{"charts/c1": chart})) == [
        ("paragraph", "Arrivals"),
        ("table", " | ships | boats\nMay | 4 | 7\nJune | 0.3 | 9"),
    ]


def test_an_inserted_document_is_read_with_its_own_parser() -> None:
    parsed = read(
        p("before") + '<w:altChunk r:id="aFChunk"/>' + p("after"),
        {"aFChunk": "chunk.html"},
        **{"chunk.html": ""},
    )
    assert [text for _, text in shown(parsed)] == ["before", "after"]
    parts = {"word/chunk.html": "<html><body><h2>Inner</h2></body></html>"}
    data = document('<w:altChunk r:id="aFChunk"/>', {"aFChunk": "chunk.html"})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts |= {name: archive.read(name).decode() for name in archive.namelist()}
    assert shown(parse(packed(parts))) == [("heading", "Inner")]


def test_the_strict_dialect_is_read_like_the_other() -> None:
    with zipfile.ZipFile(io.BytesIO(document(p("Intro", '<w:pStyle w:val="Heading1"/>') + p("strict")))) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    for name in ("word/document.xml", "_rels/.rels"):
        parts[name] = (
            parts[name]
            .replace(f"{SCHEMAS}wordprocessingml/2006/", "http://purl.oclc.org/ooxml/wordprocessingml/")
            .replace(f"{SCHEMAS}officeDocument/2006/", "http://purl.oclc.org/ooxml/officeDocument/")
        )
    assert shown(parse(packed(parts))) == [("heading", "Intro"), ("paragraph", "strict")]


def test_right_to_left_and_east_asian_text_is_kept_as_it_is() -> None:
    texts = ["שלום עולם", "مرحبا بالعالم", "東京都の港", "ภาษาไทย"]
    assert [text for _, text in shown(read("".join(map(p, texts))))] == texts


def test_damaged_xml_is_read_as_far_as_it_goes() -> None:
    with zipfile.ZipFile(io.BytesIO(document(p("good") + p("cut & off")))) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    parsed = parse(packed(parts))
    assert parsed.text.startswith("good") and parsed.notes == [
        "A part of the document is damaged; some of it may be missing."
    ]


def test_entities_are_not_resolved() -> None:
    bomb = '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b SYSTEM "file:///etc/passwd">]>'
    with zipfile.ZipFile(io.BytesIO(document(p("x&a;&b;") + p("y")))) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    parts["word/document.xml"] = bomb + parts["word/document.xml"]
    assert "root:" not in parse(packed(parts)).text


def test_broken_packages_have_clear_codes() -> None:
    whole = document(p("x" * 5000))
    assert code_of(whole[: len(whole) // 2]) == "corrupt"
    assert code_of(document("")) == "empty"
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert code_of(packed({**parts, "word/document.xml": "<nothing/>"})) == "corrupt"
    del parts["word/document.xml"]
    assert code_of(packed(parts)) == "corrupt"


def test_huge_counts_are_bounded() -> None:
    wide = table(cell("a", '<w:gridSpan w:val="999999999"/>') + cell("b"), cell("c") + cell("d"))
    assert len(read(wide).text) < 1000
    start = (
        '<w:num w:numId="1"><w:abstractNumId w:val="0"/>'
        '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="99999999999"/></w:lvlOverride></w:num>'
    )
    text = read(item("x"), numbering=numbering(("lowerRoman", "%1."), nums=start)).text
    assert text.endswith("x") and len(text) < 100
    assert len(read(item("x"), numbering=numbering(("lowerLetter", "%1."), nums=start)).text) < 100
