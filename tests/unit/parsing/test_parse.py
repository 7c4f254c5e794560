"""Each format to normalised text and blocks; each broken file to a clear code."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.documents.parsing import Parsed, ParseError, parse, parse_simple
from apps.documents.parsing.normalise import normalise
from tests.support.parsed import check, code_of, shown

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "tests" / "samples"


def sample(name: str) -> Parsed:
    return parse((SAMPLES / name).read_bytes(), filename=name)


def outcome_of(data: bytes, media_type: str | None) -> Parsed | str:
    """The checked result, or the error's code."""
    try:
        parsed = parse(data, media_type=media_type)
    except ParseError as error:
        return error.code
    check(parsed)
    return parsed


def test_plain_text_is_kept_and_split_at_blank_lines() -> None:
    parsed = sample("sample.txt")
    assert [text for _, text in shown(parsed)] == [
        "First paragraph of a plain text,\nover two lines.",
        "Second paragraph: naïve café.",
    ]
    assert (parsed.media_type, parsed.parser, parsed.title) == ("text/plain", "plain/2", None)


def test_markdown_keeps_its_source_and_gives_its_blocks() -> None:
    parsed = sample("sample.md")
    assert parsed.text == (SAMPLES / "sample.md").read_text()
    assert parsed.title == "Harbour notes"
    kinds = [(block.kind, block.level) for block in parsed.blocks]
    assert kinds[:4] == [("heading", 1), ("paragraph", 0), ("list", 0), ("heading", 2)]
    assert kinds[4:] == [("table", 0), ("code", 0), ("heading", 2), ("paragraph", 0)]
    assert shown(parsed)[2][1] == "- first crane\n- second crane\n\n  with a remark"
    assert shown(parsed)[6][1] == "Setext heading\n--------------"


def test_the_title_of_markdown_is_its_first_level_one_heading_without_front_matter() -> None:
    assert parse(b"## no\n\n# The *real* [title](x) #\n", filename="a.md").title == "The real title"


def test_html_becomes_readable_text() -> None:
    parsed = sample("sample.html")
    assert parsed.title == "Harbour & town"
    assert shown(parsed) == [
        ("heading", "Harbour opening"),
        ("paragraph", "The harbour opened in spring — at last.\nIt has three cranes."),
        ("list", "1. first crane\n2. second crane\n  - painted yellow"),
        ("table", "item | price\nberth | 20"),
        ("code", 'def moor():\n    return "rope"'),
    ]


def test_a_table_used_for_layout_is_read_as_text() -> None:
    page = "<table><tr><td><h2>News</h2><p>One.</p></td><td><p>Two.</p></td></tr></table>"
    parsed = parse(f"<html><body>{page}".encode())
    assert shown(parsed) == [("heading", "News"), ("paragraph", "One."), ("paragraph", "Two.")]


def test_a_page_of_nothing_but_navigation_keeps_it() -> None:
    assert parse(b"<html><body><nav><p>Only this</p></nav></body></html>").text == "Only this"


@pytest.mark.parametrize(
    ("encoding", "bom"),
    [("utf-8", b"\xef\xbb\xbf"), ("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff"),
     ("utf-32-le", b"\xff\xfe\x00\x00"), ("utf-32-be", b"\x00\x00\xfe\xff"),
     ("utf-8", b""), ("utf-16-le", b""), ("utf-16-be", b""), ("utf-32-le", b""), ("utf-32-be", b""),
     ("cp1252", b"")],
)  # fmt: skip
def test_encodings_are_recognised_without_being_declared(encoding: str, bom: bytes) -> None:
    text = "Größe und Länge, déjà vu: the quick brown fox went home."
    assert parse(bom + text.encode(encoding), filename="a.txt").text == text


def test_a_declared_charset_is_believed_when_the_bytes_allow_it() -> None:
    assert parse("Привет, мир".encode("koi8-r"), media_type="text/plain; charset=KOI8-R").text == "Привет, мир"
    assert parse("naïve".encode(), media_type="text/plain; charset=ascii").text == "naïve"
    page = '<html><meta charset="windows-1251"><p>Привет'.encode("cp1251")
    assert parse(page).text == "Привет"


@pytest.mark.parametrize("data", [bytes(range(256)) * 4, b"\x7fELF\x02", b"\x1f\x8b\x08" + bytes(50)])
def test_binary_content_declared_as_text_is_unsupported(data: bytes) -> None:
    assert code_of(data, media_type="text/plain") == "unsupported"


def test_unknown_types_are_unsupported_and_named_safely() -> None:
    assert code_of(b"text", media_type="application/x-thing") == "unsupported"
    assert code_of(bytes(range(256)), filename="a.xyz") == "unsupported"
    with pytest.raises(ParseError, match=re.escape("'a/?script?'")):
        parse(b"text", media_type="a/<script>")


@pytest.mark.parametrize("data", [b"", b"  \n\t ", b"\x00 ", b"\xef\xbb\xbf", b"<html><body></body></html>"])
def test_a_document_without_text_is_empty(data: bytes) -> None:
    assert code_of(data) == "empty"


def test_content_goes_before_the_declared_type_and_that_before_the_name() -> None:
    pdf = (SAMPLES / "sample.pdf").read_bytes()
    assert parse(pdf, media_type="text/plain", filename="a.txt").media_type == "application/pdf"
    assert parse(b"<!doctype html><p>x", media_type="text/plain").media_type == "text/html"
    assert parse(b"# x", media_type="text/markdown", filename="a.txt").media_type == "text/markdown"
    assert parse(b"# x", media_type="application/octet-stream", filename="a.md").media_type == "text/markdown"
    assert parse(b"a,b\n1,2", media_type="application/vnd.ms-excel", filename="a.csv").media_type == "text/csv"
    assert parse(b"const a: number = 1", media_type="video/mp2t", filename="a.ts").parser == "source/1"
    assert parse(b"key: 1", media_type="text/plain", filename="a.yaml").media_type == "application/yaml"
    assert parse(b"{\\rtf1 hello}", media_type="application/msword", filename="a.doc").media_type == "application/rtf"
    assert parse(b"<table><tr><td>1</table>", filename="a.xls").text
    assert parse(b"a\tb\n1\t2\n", filename="a.xls").parser == "delimited/1"
    assert parse(b"a text", filename="LICENSE.unheardof").media_type == "text/plain"
    assert parse(b"From: a@b.c\nSubject: Hi\nMessage-ID: <1@b.c>\n\nText.").media_type == "message/rfc822"
    assert parse(b"About PDF:\n%PDF-1.4 starts a file", media_type="text/plain").media_type == "text/plain"


@pytest.mark.parametrize("name", ["a.docx", "a.odt", "a.pdf", "a.epub", "a.doc", "a.msg", "a.png", "a.zip"])
def test_a_text_that_is_called_a_binary_format_is_corrupt(name: str) -> None:
    assert code_of(b"only a text", filename=name) == "corrupt"


def test_newlines_and_controls_are_normalised() -> None:
    assert normalise("a\r\nb\rc\x00\x07\ud800d\x0ce") == "a\nb\ncd\ne"
    assert normalise("a  \n\n\n\n\nb", trim=True, collapse=True) == "a\n\n\nb"
    assert normalise("a  \n\n\n\n\nb") == "a  \n\n\n\n\nb"


@given(st.binary(max_size=300), st.sampled_from(["text/plain", "text/markdown", "text/html", None]))
@settings(max_examples=200, deadline=None)
def test_any_bytes_parse_or_fail_with_a_code(data: bytes, media_type: str | None) -> None:
    outcome = outcome_of(data, media_type)
    assert isinstance(outcome, Parsed) or outcome in ParseError.CODES


TAGS = ["p", "ul", "ol", "li", "dl", "dt", "table", "tr", "td", "h2", "pre", "nav", "script", "b", "div"]
SOUP = [f"<{tag}>" for tag in TAGS] + [f"</{tag}>" for tag in TAGS]
SOUP += ["<br>", "a", "b", " ", "\n", "&amp;", "&#0;", "&#1;", "&#13;", "&#12;", "&#xd800;", "&nbsp;"]


@given(st.lists(st.sampled_from(SOUP), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_tag_soup_parses_or_is_empty(pieces: list[str]) -> None:
    outcome = outcome_of("".join(pieces).encode(), "text/html")
    assert isinstance(outcome, Parsed) or outcome == "empty"


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"<div>" * 10_000 + b"deep", "text/html"),
        (b"<table><tr><td>" * 3_000 + b"deep", "text/html"),
        (b"<ul><li>" * 3_000 + b"deep", "text/html"),
        (b">" * 10_000 + b" deep", "text/markdown"),
        (b"- " * 10_000 + b"deep", "text/markdown"),
        (b"[" * 50_000 + b"deep", "text/markdown"),
        (b"|" * 50_000 + b"deep\n" + b"|-" * 20_000, "text/markdown"),
        (b"deep" + b" \n" * 200_000, "text/plain"),
    ],
)
def test_deep_nesting_and_long_runs_are_read_in_bounded_time(data: bytes, media_type: str) -> None:
    started = time.monotonic()
    assert "deep" in parse(data, media_type=media_type).text
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "start", [b"<!-- -->" * 300, b"<!--" * 600, b"<?xml " * 400, b" \n" * 1000, b"<!-- -- >" * 250]
)
def test_what_only_looks_like_the_start_of_a_page_is_no_trap(start: bytes) -> None:
    # The web process asks as well. A row of comments once took a time that doubled with each of them.
    ask = "import sys; from apps.documents.parsing import parse_simple as read; print(read(sys.stdin.buffer.read()))"
    told = subprocess.run(
        [sys.executable, "-c", ask], input=start + b"and no page", capture_output=True, timeout=30, check=True, cwd=ROOT
    )
    assert told.stdout.startswith((b"Parsed(", b"None"))


def test_comments_before_a_page_do_not_hide_it() -> None:
    assert parse(b"<!-- a -->\n<!-- b -->\n<html><body>A page.").media_type == "text/html"


@pytest.mark.parametrize(
    ("data", "named", "simple"),
    [
        (b"A line.\n\nAnother.", {"media_type": "text/plain"}, True),
        ("Grüße.".encode(), {"filename": "a.txt"}, True),
        (b"a;b\n1;2\n", {"media_type": "text/csv"}, False),
        ("Grüße.".encode("latin-1"), {"media_type": "text/plain"}, False),  # its encoding has to be guessed
        (b"# A title", {"filename": "a.md"}, False),
        (b"<html><body>A page", {"media_type": "text/plain"}, False),
        (b"%PDF-1.7", {"media_type": "text/plain"}, False),
        (b'\x1b$B$"$$\x1b(B', {"media_type": "text/plain"}, False),
        (b"a\x00b", {"media_type": "text/plain"}, False),
        ("Grüße.\r\n\r\nZwei.".encode("utf-16"), {"filename": "a.txt"}, True),
        ("def größe():\n\tpass\x01\n".encode("utf-8-sig"), {"filename": "a.py"}, True),
        ("Grüße.".encode("utf-16-le"), {"filename": "a.txt"}, False),  # no mark
        ("a\x00b".encode("utf-16"), {"filename": "a.txt"}, False),
        ("Grüße.".encode("utf-16") + b"x", {"filename": "a.txt"}, False),  # half a character
        (" \n".encode("utf-16"), {"filename": "a.txt"}, False),
        (b"def a():\r\n    b()\r\n\r\nc()\r\n", {"filename": "a.py"}, True),
        (b"word\n\n" * 100_000, {"media_type": "text/plain"}, True),
        (b"word " * 1_000_000, {"media_type": "text/plain"}, False),
        (b"text", {"media_type": "application/x-unknown"}, False),
        (b"", {"media_type": "text/plain"}, False),
    ],
)
def test_only_plain_text_and_code_are_read_outside_the_sandbox(
    data: bytes, named: dict[str, str], simple: bool
) -> None:
    found = parse_simple(data, **named)
    assert (found is not None) is simple
    assert found is None or found == parse(data, **named)
