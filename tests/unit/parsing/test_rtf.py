"""RTF: structure, encodings, what a reader does not see, and broken files."""

from __future__ import annotations

import random
import time

import pytest

from apps.documents.parsing import ParseError, parse
from apps.documents.parsing.legacy.rtf_html import unwrapped
from tests.support.parsed import code_of, shown

FONTS = (
    rb"{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Arial Cyr;}{\f2\fcharset128 MS Mincho;}{\f3\fcharset2 Symbol;}"
    rb"{\f4\fcharset2 Wingdings;}{\f5\fcharset177 Arial Hebrew;}}"
)
STYLES = (
    rb"{\stylesheet{\s0 Normal;}{\s1\outlinelevel0 \'dcberschrift 1;}{\s2 heading 2;}{\s7\sbasedon2 Mine;}"
    rb"{\*\cs9 \outlinelevel0 Strong;}}"
)


def rtf(body: bytes) -> bytes:
    return rb"{\rtf1\ansi\ansicpg1252\deff0" + FONTS + STYLES + body + b"}"


def blocks(body: bytes) -> list[tuple[str, str]]:
    return shown(parse(rtf(body), filename="a.rtf"))


def outcome(data: bytes) -> str:
    """ "read", or the code with which the data is refused."""
    try:
        shown(parse(data, filename="a.rtf"))
    except ParseError as error:
        return error.code
    return "read"


def test_headings_come_from_outline_levels_style_names_and_the_styles_they_are_based_on() -> None:
    parsed = parse(
        rtf(
            rb"\pard\s1 One\par\pard\s2 Two\par\pard\s7 Three\par\pard\outlinelevel3 Four\par"
            rb"\pard\s1\outlinelevel9 Body\par\pard Text\par"
        )
    )
    assert [(block.kind, block.level) for block in parsed.blocks] == [
        *(("heading", 1), ("heading", 2), ("heading", 2), ("heading", 4)),
        *(("paragraph", 0), ("paragraph", 0)),
    ]
    assert parsed.parser == "rtf/1" and parsed.media_type == "application/rtf"


def test_lists_keep_their_markers_and_nesting() -> None:
    listed = (
        rb"{\listtext\pard\plain 1.\tab}\pard\ls1 one\par{\listtext\pard\plain\f3 \'b7\tab}\pard\ls1\ilvl1 inner\par"
        rb"{\listtext\pard\plain\f3 \'b7\tab}again\par{\listtext\pard\plain 2.\tab}\pard\ls1 two\par\pard after\par"
    )
    assert blocks(listed) == [("list", "1. one\n  - inner\n  - again\n2. two"), ("paragraph", "after")]
    assert blocks(rb"{\pntext\f4\'a7\tab}{\*\pn\pnlvlblt}old\par") == [("list", "- old")]


def test_tables_are_rows_and_a_table_of_one_column_is_text() -> None:
    table = (
        rb"\trowd\cellx1\cellx2\pard\intbl a\cell b\par c\cell\row"
        rb"\trowd\cellx1\cellx2\pard\intbl\cell d\cell\row\pard after\par"
    )
    assert blocks(table) == [("table", "a | b c\n | d"), ("paragraph", "after")]
    assert blocks(rb"\trowd\cellx1\pard\intbl one\par two\cell\row\pard x\par") == [
        *(("paragraph", "one"), ("paragraph", "two"), ("paragraph", "x"))
    ]


def test_a_table_in_a_table_stays_in_its_cell() -> None:
    nested = (
        rb"\trowd\cellx1\cellx2\pard\intbl a\cell\pard\intbl\itap2 x\nestcell y\nestcell"
        rb"{\*\nesttableprops\trowd\nestrow}{\nonesttables\par}\pard\intbl b\cell\row\pard end\par"
    )
    assert blocks(nested) == [("table", "a | x y b"), ("paragraph", "end")]


def test_a_footnote_follows_its_paragraph_and_leaves_no_mark_in_it() -> None:
    body = (
        rb"The cat{\super\chftn}{\footnote\pard\plain{\super\chftn} Felis catus.\par Second line.} sat.\par Next.\par"
    )
    assert blocks(body) == [
        *(("paragraph", "The cat sat."), ("paragraph", "Felis catus.\nSecond line."), ("paragraph", "Next."))
    ]


def test_a_note_in_a_list_stands_after_the_list() -> None:
    body = rb"{\listtext -\tab}one{\footnote why}\par{\listtext -\tab}two\par\pard end\par"
    assert blocks(body) == [("list", "- one\n- two"), ("paragraph", "why"), ("paragraph", "end")]


def test_a_note_of_the_paragraph_after_a_list_stands_behind_that_paragraph() -> None:
    body = rb"{\listtext -\tab}one\par\pard end{\footnote why}.\par"
    assert blocks(body) == [("list", "- one"), ("paragraph", "end."), ("paragraph", "why")]


def test_comments_are_read_and_their_authors_are_not() -> None:
    body = rb"Text{\*\atnid AB}{\*\atnauthor Ann B}\chatn{\*\annotation{\*\atndate 1}\pard A remark.} here.\par"
    assert blocks(body) == [("paragraph", "Text here."), ("paragraph", "Comment: A remark.")]


@pytest.mark.parametrize(
    "body",
    [
        rb"See {\v not }{\v0 this}\par",
        rb"See {\deleted not }this\par",
        rb"See \v not \v0 this\par",
        rb"See \v not \plain this\par",
        rb'See {\field{\*\fldinst HYPERLINK "http://not"}{\fldrslt this}}\par',
        rb"See {\xe not}{\tc not}this\par",
        rb"See {\*\unheardof not}this\par",
        rb"See {\pict\pngblip 6e6f74}this\par",
        rb"See {\object\objemb{\*\objdata 6e6f74}{\result this}}\par",
        rb"{\header not\par}{\footer not\par}See this\par",
        rb"See {\upr{not}{\*\ud this}}\par",
        rb"{\*\bkmkstart not}See this{\*\bkmkend not}\par",
        rb"See {\shp{\*\shpinst{\sp{\sn not}{\sv 1}}}{\shprslt not}}this\par",
    ],
)
def test_what_a_reader_does_not_see_is_left_out(body: bytes) -> None:
    assert blocks(body) == [("paragraph", "See this")]


def test_a_text_box_stands_after_its_paragraph() -> None:
    body = rb"Be{\shp{\*\shpinst{\sp{\sn a}{\sv b}}{\shptxt \pard In the box.\par}}{\shprslt no}}fore.\par After.\par"
    assert [text for _, text in blocks(body)] == ["Before.", "In the box.", "After."]


def test_binary_data_is_stepped_over_whatever_braces_are_in_it() -> None:
    assert blocks(rb"a{\pict\wmetafile8\bin9 }}}\rtf}}}b\par") == [("paragraph", "ab")]
    assert blocks(rb"a\bin5 {{{{{b\par") == [("paragraph", "ab")]


def test_bytes_are_read_in_the_code_page_of_their_font() -> None:
    assert blocks(rb"{\f1\'cf\'f0\'e8}{\f0 \'e9}{\f2\'83\'5c\'82\'e0}{\f2\'83\}}{\f5\'f9\'ec\'e5\'ed}\par") == [
        ("paragraph", "Приéソもマשלום")
    ]
    assert blocks(rb"{\f3 abg}{\f4 abc} x\par") == [("paragraph", "αβγ x")]


def test_unicode_skips_what_stands_in_for_it() -> None:
    assert blocks(rb"\uc1 caf\u233?\u233\'e9\u-10179?\u-8704? {\uc2\u26085\'93\'fa}x\uc0\u233 y\par") == [
        ("paragraph", "caféé😀 日xéy")
    ]


def test_the_code_page_of_the_document_counts_where_the_font_names_none() -> None:
    data = rb"{\rtf1\ansi\ansicpg932{\fonttbl{\f0 Mincho;}}\f0\'93\'fa\'96\'7b\par}"
    assert shown(parse(data)) == [("paragraph", "日本")]


def test_special_characters_and_escapes() -> None:
    assert blocks(rb"a\~b\_c\-d\{e\}\\ \emdash\ldblquote x\rdblquote\tab y\line z\par") == [
        ("paragraph", "a b-cd{e}\\ —“x” y\nz")
    ]


def test_the_title_is_read_in_its_own_encoding() -> None:
    assert parse(rtf(rb"{\info{\author me}{\title Caf\'e9}}x\par")).title == "Café"
    assert parse(rtf(rb"{\info{\upr{\title ??}{\*\ud{\title \u26085?\u26412?}}}}x\par")).title == "日本"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (rb"{\rtf1 open {\b group", "open group"),
        (rb"{\rtf1 closed}} more\par}", "closed more"),
        (rb"{\rtf1 done\par}" + b"\0\0 rubbish", "done"),
        (rb"{\rtf1 cut\'", "cut"),
        (rb"{\rtf1 {\fonttbl{\f0", ""),
        (rb"{\rtf1 {\pict ffff", ""),
        (rb"{\rtf1 x\u99999999? y\par}", "x y"),
        (rb"{\rtf1 x\bin99999999 y\par}", "x"),
        (rb"{\rtf1 \f99999 x\par}", "x"),
    ],
)
def test_broken_files_give_what_there_is(data: bytes, text: str) -> None:
    if not text:
        assert code_of(data, filename="a.rtf") == "empty"
    else:
        assert " ".join(parse(data, filename="a.rtf").text.split()) == text


def test_a_file_without_text_is_empty() -> None:
    assert code_of(rtf(rb"\pard\par\par{\pict ffff}")) == "empty"


def test_groups_without_end_are_refused_and_cost_little() -> None:
    started = time.perf_counter()
    assert code_of(b"{\\rtf1 " + b"{" * 1_000_000) == "malformed"
    parse(b"{\\rtf1 x" + b"}" * 500_000)
    parse(b"{\\rtf1 x" + b"{\\pict {" * 100_000)
    parse(b"{\\rtf1 x" + b"{\\*\\y}" * 100_000)
    assert time.perf_counter() - started < 5


def test_damaged_bytes_never_fail_in_another_way() -> None:
    sample = rtf(
        rb"\pard\s1 One\par{\listtext 1.\tab}two{\footnote x}\par\trowd\cellx1\intbl a\cell b\cell\row\u233?\'e9\par"
    )
    chance = random.Random(5)
    for _ in range(300):
        data = bytearray(sample)
        for _ in range(chance.randint(1, 12)):
            data[chance.randrange(6, len(data))] = chance.randrange(256)
        assert outcome(bytes(data)) in ("read", "empty", "malformed")


def test_html_inside_rtf_comes_out_as_it_went_in() -> None:
    data = (
        rb"{\rtf1\ansi\ansicpg1251\fromhtml1 \deff0{\fonttbl{\f0\fcharset204 Arial;}}{\colortbl;}"
        rb"{\*\htmltag19 <html>}{\*\htmltag64 <p>}\htmlrtf {\b\htmlrtf0 \'cf\u233? \{x\}\htmlrtf }\par\htmlrtf0"
        rb"{\*\htmltag84 &nbsp;}{\*\mhtmltag84 no}\par{\*\htmltag72 </p>}{\pntext no}}"
    )
    assert unwrapped(data) == "<html><p>Пé {x}&nbsp;\n</p>"
    assert unwrapped(rtf(b"x")) is None
