"""XML: documents, feeds, office files and data; and nothing that is not in the file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from apps.documents.parsing import Parsed, ParseError, parse
from tests.support.parsed import code_of, comparable, shown

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "files"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared test files lie beside the repository")


def xml(text: str | bytes, filename: str = "a.xml") -> Parsed:
    return parse(text if isinstance(text, bytes) else text.encode(), filename=filename)


def levels(parsed: Parsed) -> list[tuple[int, str]]:
    return [(block.level, parsed.text[block.start : block.end]) for block in parsed.blocks if block.level]


# Documents

JATS = """<?xml version="1.0"?><!DOCTYPE article PUBLIC "-//NLM//DTD JATS" "JATS.dtd">
<article xmlns:xlink="http://www.w3.org/1999/xlink"><front>
<journal-meta><journal-title>Harbours</journal-title></journal-meta>
<article-meta><article-id pub-id-type="doi">10.1/x</article-id>
<title-group><article-title>On <italic>ropes</italic></article-title></title-group>
<contrib-group><contrib><name><surname>Wolf</surname><given-names>Ada</given-names></name><xref ref-type="aff">1</xref>
</contrib><contrib><name><surname>Sun</surname><given-names>Bo</given-names></name></contrib></contrib-group>
<aff><label>1</label><institution>University</institution><country>Italy</country></aff>
<pub-date><day>2</day><month>6</month><year>2020</year></pub-date>
<abstract><title>Abstract</title><p>We tie ropes.</p></abstract></article-meta></front>
<body><sec><label>1</label><title>Methods</title><p>We tied<xref ref-type="fn">a</xref> ten ropes<fn><label>a</label>
<p>Of hemp.</p></fn> (<xref ref-type="bibr">Lee, 2001</xref>) in x<sup>2</sup> days.</p>
<sec><title>Knots</title><p>Before: <list list-type="order"><list-item><p>bowline</p></list-item><list-item><p>hitch
</p><list><list-item><p>clove</p></list-item></list></list-item></list> after.</p>
<table-wrap><label>Table 1.</label><caption><title>Ropes.</title><p>All of them.</p></caption>
<table><thead><tr><th>a</th><th colspan="2">b</th></tr></thead>
<tbody><tr><td rowspan="2">1</td><td>2</td><td>3</td></tr>
<tr><td>4</td><td>5</td></tr></tbody></table></table-wrap>
<fig><label>Figure 1.</label><caption><title>A knot.</title></caption><graphic xlink:href="x.tif"/></fig>
</sec></sec></body>
<back><ref-list><title>References</title><ref><label>1.</label><mixed-citation>
<name><surname>Lee</surname><given-names>A</given-names></name>. <source>Knots</source>, 2001.</mixed-citation></ref>
<ref><element-citation><person-group><name><surname>Wu</surname><given-names>C</given-names></name>
</person-group><year>1999</year><source>Ropes</source></element-citation></ref></ref-list></back></article>"""


def test_a_journal_article_has_its_structure() -> None:
    parsed = xml(JATS)
    assert shown(parsed) == [
        ("heading", "On ropes"),
        ("paragraph", "journal-title: Harbours\narticle-id: 10.1/x (pub-id-type=doi)"),
        ("paragraph", "Ada Wolf, Bo Sun"),
        ("paragraph", "University, Italy"),
        ("paragraph", "pub-date: 2020-06-02"),
        ("heading", "Abstract"),
        ("paragraph", "We tie ropes."),
        ("heading", "1 Methods"),
        ("paragraph", "We tied ten ropes (Lee, 2001) in x2 days."),
        ("paragraph", "a Of hemp."),
        ("heading", "Knots"),
        ("paragraph", "Before:"),
        ("list", "1. bowline\n2. hitch\n  - clove"),
        ("paragraph", "after."),
        ("paragraph", "Table 1. Ropes. All of them."),
        ("table", "a | b\n1 | 2 | 3\n | 4 | 5"),
        ("paragraph", "Figure 1. A knot."),
        ("heading", "References"),
        ("list", "1. Lee A. Knots, 2001.\n- C Wu, 1999, Ropes"),
    ]
    assert levels(parsed) == [(1, "On ropes"), (2, "Abstract"), (2, "1 Methods"), (3, "Knots"), (2, "References")]
    assert (parsed.title, parsed.parser, parsed.media_type) == ("On ropes", "xml_text/2", "application/xml")


def test_docbook_has_its_structure_and_its_entities() -> None:
    parsed = xml("""<!DOCTYPE book [<!ENTITY dock "The <emphasis>Dock</emphasis> &#169;"> ]>
    <book xmlns="http://docbook.org/ns/docbook"><info><title>Manual</title><date>2024</date></info>
    <chapter><title>Start</title><para>Use &dock;&nbsp;now<indexterm><primary>no</primary></indexterm><footnote><para>Or
    later.</para></footnote>.</para><programlisting>a = 1

  b</programlisting>
    <itemizedlist><listitem><para>One.</para><para>More.</para></listitem><listitem><para>Two.</para></listitem>
    </itemizedlist><variablelist><varlistentry><term>rope</term><listitem><para>A line.</para></listitem></varlistentry>
    </variablelist><note><title>Beware</title><para>It is wet.</para></note>
    <table><title>Prices</title><tgroup cols="3"><colspec colname="c1"/><colspec colname="c2"/><colspec colname="c3"/>
    <tbody><row><entry namest="c1" nameend="c2">wide</entry><entry morerows="1">high</entry></row>
    <row><entry>x</entry><entry>y</entry></row></tbody></tgroup></table></chapter></book>""")
    assert shown(parsed) == [
        ("heading", "Manual"),
        ("paragraph", "date: 2024"),
        ("heading", "Start"),
        ("paragraph", "Use The Dock © now."),
        ("paragraph", "Or later."),
        ("code", "a = 1\n\n  b"),
        ("list", "- One.\n  More.\n- Two."),
        ("list", "rope\n  A line."),
        ("paragraph", "Beware"),
        ("paragraph", "It is wet."),
        ("paragraph", "Prices"),
        ("table", "wide |  | high\nx | y"),
    ]
    assert parsed.title == "Manual"


def test_dita_has_its_structure() -> None:
    parsed = xml(
        """<task id="t"><title>Moor a boat</title><shortdesc>How to moor.</shortdesc><taskbody><steps>
    <step><cmd>Throw the <uicontrol>rope</uicontrol>.</cmd><info>Gently.</info></step><step><cmd>Tie it.</cmd></step>
    </steps>
    <result><ul><li>The boat is fast.</li></ul><simpletable><sthead><stentry>a</stentry><stentry>b</stentry></sthead>
    <strow><stentry>1</stentry><stentry>2</stentry></strow></simpletable></result></taskbody></task>""",
        "a.dita",
    )
    assert shown(parsed) == [
        ("heading", "Moor a boat"),
        ("paragraph", "How to moor."),
        ("list", "1. Throw the rope.\n  Gently.\n2. Tie it."),
        ("list", "- The boat is fast."),
        ("table", "a | b\n1 | 2"),
    ]


def test_tei_notes_stand_below_their_paragraph() -> None:
    parsed = xml(
        """<TEI xmlns="http://www.tei-c.org/ns/1.0"><teiHeader><fileDesc><titleStmt><title>Letters</title></titleStmt>
    </fileDesc></teiHeader><text><body><div><head>I</head><p>Dear<note>To Bo.</note> friend,<lb/> hello.</p></div>
    </body></text></TEI>"""
    )
    assert shown(parsed) == [
        ("heading", "Letters"), ("heading", "I"), ("paragraph", "Dear friend, hello."), ("paragraph", "To Bo."),
    ]  # fmt: skip


def test_prose_in_an_unknown_vocabulary_is_prose() -> None:
    parsed = xml(
        "<law><article n='1'><title>Ports</title><p>A port is <b>open</b>.</p><odd>It <i>too</i></odd></article></law>"
    )
    assert shown(parsed) == [("heading", "Ports"), ("paragraph", "A port is open."), ("paragraph", "It too")]


def test_headings_beside_paragraphs_are_of_one_level() -> None:
    parsed = xml("<d><title>T</title><heading>A</heading><p>One.</p><heading>B</heading><p>Two.</p></d>")
    assert levels(parsed) == [(1, "T"), (2, "A"), (2, "B")]


def test_names_in_capitals_and_greek_letters_of_old_vocabularies_are_known() -> None:
    source = "<PATDOC><SDODE><PARA><PTEXT><PDAT>The angle &agr; and &OHgr;&Ohgr;</PDAT></PTEXT></PARA></SDODE></PATDOC>"
    parsed = xml(source)
    assert shown(parsed) == [("paragraph", "The angle α and Ω")]
    assert parsed.notes == ["Entities that the file does not spell out were left out."]


def test_a_manual_page_is_headed_by_its_name() -> None:
    parsed = xml(
        """<refentry><refnamediv><refname>moor</refname><refpurpose>ties a boat</refpurpose></refnamediv>
    <refsect1><title>Options</title><para>None.</para></refsect1></refentry>"""
    )
    assert levels(parsed) == [(1, "moor"), (2, "Options")]
    assert ("paragraph", "ties a boat") in shown(parsed)


def test_facts_between_prose_keep_their_names_and_authors_their_roles() -> None:
    parsed = xml(
        """<article><front><article-meta><contrib-group><contrib><name><surname>Wolf</surname><given-names>Ada</given-names>
    </name><role>Editor</role></contrib></contrib-group></article-meta></front>
    <body><p>Words.</p><price currency="EUR">9.50</price><p><bold>All bold.</bold></p></body></article>"""
    )
    assert [text for _, text in shown(parsed)] == [
        "Ada Wolf\nAda Wolf: Editor", "Words.", "price: 9.50 (currency=EUR)", "All bold.",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["sec", "p", "b", "list", "li", "unknown"])
def test_text_stays_however_deep_it_is(name: str) -> None:
    assert "deep" in xml(f"<a><p>x</p>{f'<{name}>' * 100}deep{f'</{name}>' * 100}</a>").text


def test_a_table_in_a_cell_is_text_of_that_cell() -> None:
    inner = "<table><tr><td>in</td><td>ner</td></tr></table>"
    assert xml(f"<a><p>x</p><table><tr><td>a</td><td>{inner}</td></tr></table></a>").text == "x\n\na | in ner"


def test_cells_that_claim_to_cover_millions_cover_few() -> None:
    parsed = xml('<a><p>x</p><table><tr><td colspan="99999">1</td><td rowspan="99999">2</td></tr></table></a>')
    assert len(parsed.text) < 1000


# Feeds


def test_a_feed_has_its_entries_under_their_titles() -> None:
    parsed = xml(
        """<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/"><channel><title>Harbour</title>
    <description>All of it.</description><item><title>Crane &amp; rope</title><link>http://x.org/1</link>
    <pubDate>Mon, 1 Jan 2024</pubDate><description>&lt;p&gt;The first ...&lt;/p&gt;</description>
    <content:encoded><![CDATA[<p>The first crane.</p><ul><li>red</li></ul>]]></content:encoded></item>
    <item><title>Two</title><description>Plain words</description></item></channel></rss>""",
        "a.rss",
    )
    assert shown(parsed) == [
        ("heading", "Harbour"),
        ("paragraph", "All of it."),
        ("heading", "Crane & rope"),
        ("paragraph", "link: http://x.org/1\npubDate: Mon, 1 Jan 2024"),
        ("paragraph", "The first crane."),
        ("list", "- red"),
        ("heading", "Two"),
        ("paragraph", "Plain words"),
    ]
    assert [level for level, _ in levels(parsed)] == [1, 2, 2] and parsed.title == "Harbour"


def test_atom_is_a_feed_too() -> None:
    parsed = xml(
        """<feed xmlns="http://www.w3.org/2005/Atom"><title type="html">A &lt;b&gt;feed&lt;/b&gt;</title><entry>
    <title>One</title><link href="http://x.org"/><author><name>Ada</name></author><content type="xhtml">
    <div xmlns="http://www.w3.org/1999/xhtml"><p>Words <b>in</b> it.</p></div></content></entry></feed>""",
        "a.atom",
    )
    assert shown(parsed) == [
        ("heading", "A feed"),
        ("heading", "One"),
        ("paragraph", "link: http://x.org\nauthor:\nname: Ada"),
        ("paragraph", "Words in it."),
    ]


# Data


def test_data_is_names_and_values_with_a_block_for_each_record() -> None:
    parsed = xml(
        """<order no="7" xmlns:x="urn:x"><!-- no --><date>2024-01-02</date><empty/><?no no?>
    <line><item>Rope &lt;red&gt;</item><amount currency="EUR">9.50</amount></line>
    <line><item><![CDATA[Buoy & chain]]></item><x:part name="x" price="3"/></line></order>"""
    )
    assert shown(parsed) == [
        ("paragraph", "no: 7\ndate: 2024-01-02"),
        ("paragraph", "line:\n  item: Rope <red>\n  amount: 9.50 (currency=EUR)"),
        ("paragraph", "line:\n  item: Buoy & chain\n  part: name=x, price=3"),
    ]
    assert parsed.title is None


def test_many_records_stand_under_the_name_of_what_holds_them() -> None:
    parsed = xml("<a><products>" + "<product><name>rope</name></product>" * 5 + "</products></a>")
    assert shown(parsed)[0] == ("heading", "products")
    assert [text for _, text in shown(parsed)[1:]] == ["product:\n  name: rope"] * 5


def test_mixed_content_flows() -> None:
    assert xml("<a><note>Tie the <b>red</b> rope,\n   <i>now</i>.</note></a>").text == "note: Tie the red rope, now."


# Drawings and office files


def test_the_texts_of_a_drawing_are_lines() -> None:
    parsed = xml(
        """<svg xmlns="http://www.w3.org/2000/svg"><title>Map</title><style>.a{}</style><script>no()</script>
    <g><text x="1">North <tspan>pier</tspan></text></g><text>South</text></svg>""",
        "a.svg",
    )
    assert (parsed.text, parsed.title) == ("Map\nNorth pier\nSouth", "Map")


def test_a_word_document_in_one_file_is_read_without_what_was_deleted() -> None:
    w = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    parsed = xml(
        f"""<pkg:package xmlns:pkg="http://schemas.microsoft.com/office/2006/xmlPackage">
    <pkg:part pkg:name="/word/styles.xml"><pkg:xmlData><p>no</p></pkg:xmlData></pkg:part>
    <pkg:part pkg:name="/word/document.xml"><pkg:xmlData><w:document xmlns:w="{w}"><w:body>
    <w:p><w:pPr><w:pStyle w:val="Heading2"/></w:pPr><w:r><w:t>Head</w:t></w:r></w:p>
    <w:p><w:r><w:t>Kept </w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>
    <w:ins><w:r><w:t>new</w:t></w:r>
    </w:ins><w:r><w:instrText>PAGE</w:instrText></w:r></w:p>
    <w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc>
    <w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p></w:tc></w:tr></w:tbl>
    </w:body></w:document></pkg:xmlData></pkg:part></pkg:package>"""
    )
    assert shown(parsed) == [("heading", "Head"), ("paragraph", "Kept new"), ("table", "a | b")]


def test_a_workbook_in_one_file_is_its_sheets() -> None:
    ns = "urn:schemas-microsoft-com:office:spreadsheet"
    parsed = xml(
        f"""<?mso-application progid="Excel.Sheet"?>
    <Workbook xmlns="{ns}" xmlns:ss="{ns}"><Worksheet ss:Name="Prices"><Table>
    <Row><Cell><Data ss:Type="String">a</Data></Cell><Cell ss:Index="3"><Data ss:Type="Number">5</Data></Cell></Row>
    <Row ss:Index="9"><Cell ss:MergeAcross="1"><Data>m</Data></Cell><Cell><Data>n</Data></Cell></Row>
    </Table></Worksheet></Workbook>"""
    )
    assert shown(parsed) == [("heading", "Prices"), ("table", "a |  | 5\nm |  | n")]
    assert {block.page for block in parsed.blocks} == {1}


def test_a_web_page_is_read_as_one() -> None:
    page = (
        '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>T</title></head><body><h1>H</h1><p>P</p></body></html>'
    )
    parsed = parse(b'<?xml version="1.0"?>' + page.encode(), media_type="application/xml")
    assert (shown(parsed), parsed.title) == ([("heading", "H"), ("paragraph", "P")], "T")


# Encodings


@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "iso-8859-1", "windows-1252"])
def test_declared_encodings_are_followed(codec: str) -> None:
    text = f'<?xml version="1.0" encoding="{codec}"?><a><name>Größe für Öl</name></a>'
    assert xml(text.encode(codec)).text == "name: Größe für Öl"


def test_a_wrong_declaration_does_no_harm() -> None:
    assert xml('<?xml version="1.0" encoding="ISO-8859-1"?><a><b>Größe 港 שלום</b></a>').text == "b: Größe 港 שלום"
    assert xml('<?xml version="1.0" encoding="UTF-16"?><a><b>Größe</b></a>').text == "b: Größe"
    assert xml('<?xml version="1.0" encoding="no-such"?><a><b>x</b></a>').text == "b: x"
    assert xml('\n\n <?xml version="1.0"?>\n<a><b>x</b></a>').text == "b: x"


def test_control_characters_are_dropped() -> None:
    assert xml("<a><b>x\x08y</b></a>").text == "b: xy"


# What is broken or hostile


def test_what_is_not_well_formed_says_where() -> None:
    with pytest.raises(ParseError) as caught:
        xml('<?xml version="1.0"?>\n<a>\n<b></c></a>')
    assert (caught.value.code, "line 3" in caught.value.detail) == ("malformed", True)
    assert code_of(b"<a><b>cut", filename="a.xml") == "malformed"
    assert code_of(b"no markup", filename="a.xml") == "malformed"


def test_no_text_is_empty() -> None:
    assert code_of(b"<a><b/></a>", filename="a.xml") == "empty"
    assert code_of(b"  \n", filename="a.xml") == "empty"


def test_nothing_outside_the_file_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("treasure")
    for kind in ("", "% "):
        source = (
            f'<!DOCTYPE a [<!ENTITY {kind}x SYSTEM "{secret.as_uri()}">{"%x;" if kind else ""}]><a><b>seen &x;</b></a>'
        )
        parsed = xml(source)
        assert parsed.text == "b: seen"
        assert parsed.notes == ["Entities that the file does not spell out were left out."]
    dtd = f'<!DOCTYPE a SYSTEM "{secret.as_uri()}"><a><b>seen</b></a>'
    assert xml(dtd).text == "b: seen"
    include = f'<xi:include href="{secret.as_uri()}" parse="text"/>'
    assert "treasure" not in xml(f'<a xmlns:xi="http://www.w3.org/2001/XInclude"><b>x</b>{include}</a>').text


def test_entities_in_entities_do_not_grow() -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    source = f'<!DOCTYPE a [<!ENTITY l0 "lol">{laughs}]><a c="&l9;"><b>ha &l0; &l9;</b></a>'
    assert xml(source).text == "b: ha lol"


def test_long_entities_are_not_repeated_without_end() -> None:
    source = f'<!DOCTYPE a [<!ENTITY x "{"y" * 500}">]><a><b>{"&x;" * 100_000}</b></a>'
    assert len(xml(source).text) < 2_000_000


def test_entities_of_web_pages_are_known_and_cdata_is_left_alone() -> None:
    assert xml("<a><b>caf&eacute; &amp; &hellip; <![CDATA[&eacute;]]></b></a>").text == "b: café & … &eacute;"


def test_deep_nesting_is_malformed_at_once() -> None:
    began = time.monotonic()
    assert code_of(b"<a>" * 10_000 + b"x" + b"</a>" * 10_000, filename="a.xml") == "malformed"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("piece", ["<!--", "<![CDATA[", "<!DOCTYPE a [", "&x;", "<!ENTITY x '", "<p>"])
def test_hostile_markup_takes_linear_time(piece: str) -> None:
    began = time.monotonic()
    code_of(("<a>&y;" + piece * 200_000).encode(), filename="a.xml")
    assert time.monotonic() - began < 10


def test_many_records_take_linear_time() -> None:
    began = time.monotonic()
    parsed = xml("<a>" + "<r><x>1</x><y>two</y></r>" * 20_000 + "</a>")
    assert len(parsed.blocks) == 20_000
    assert time.monotonic() - began < 20


@needs_shared
@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("tika__testONIXMessage.xml", "ContactName: Someone Or Other, blah"),
        ("docling__elife-56337.xml", "library construction with target enrichment using the"),
    ],
)
def test_the_shared_files_are_read(name: str, phrase: str) -> None:
    assert comparable(phrase) in comparable(xml((SHARED / "good" / name).read_bytes(), name).text)


@needs_shared
def test_the_shared_file_with_an_external_entity_is_harmless() -> None:
    assert code_of((SHARED / "bad" / "tika__testXXE.xml").read_bytes(), filename="a.xml") == "empty"


def test_a_document_that_is_nothing_but_large_entities_is_malformed() -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    assert code_of(f'<!DOCTYPE a [<!ENTITY l0 "lol">{laughs}]><a>&l9;</a>'.encode(), filename="x.xml") == "malformed"
    quadratic = f'<!DOCTYPE a [<!ENTITY b "{"b" * 100_000}">]><a>{"&b;" * 10_000}</a>'
    assert code_of(quadratic.encode(), filename="x.xml") == "malformed"
    assert code_of(b'<!DOCTYPE a [<!ENTITY b "b">]><a/>', filename="x.xml") == "empty"
