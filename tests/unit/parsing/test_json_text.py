"""JSON and JSON lines to readable lines, a block per record."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from apps.documents.parsing import Parsed, ParseError, parse
from tests.support.parsed import code_of, shown


def read(value: Any) -> Parsed:
    return parse(json.dumps(value).encode(), filename="a.json")


def raw(text: str, filename: str = "a.json") -> Parsed:
    return parse(text.encode(), filename=filename)


def test_names_and_values_are_lines() -> None:
    parsed = read({"name": "Möwe", "open": True, "closed": None, "tags": ["a", "b"], "size": {"x": 1, "y": 2.50}})
    assert shown(parsed) == [
        ("paragraph", "name: Möwe\nopen: true\nclosed: null\ntags:\n  - a\n  - b"),
        ("paragraph", "size:\n  x: 1\n  y: 2.5"),
    ]
    assert (parsed.media_type, parsed.parser, parsed.title) == ("application/json", "json_text/1", None)


def test_numbers_are_kept_as_they_are_written() -> None:
    assert raw('{"a": 1.10, "b": 1e400, "c": 123456789012345678901234567890, "d": NaN}').text == (
        "a: 1.10\nb: 1e400\nc: 123456789012345678901234567890\nd: NaN"
    )


def test_a_list_of_numbers_is_one_line() -> None:
    assert raw('{"at": [9.99, 53.55], "vectors": [[1, 2], [3]]}').text == "at: 9.99, 53.55\n\nvectors:\n  - 1, 2\n  - 3"


def test_a_name_that_comes_twice_is_kept_twice() -> None:
    assert raw('{"a": 1, "a": 2}').text == "a: 1\na: 2"


def test_each_record_of_a_list_is_a_block() -> None:
    parsed = read([{"name": "rope", "price": 9}, {"name": "buoy", "of": {"colour": "red"}}])
    assert shown(parsed) == [
        ("paragraph", "name: rope\nprice: 9"),
        ("paragraph", "name: buoy\nof:\n  colour: red"),
    ]


def test_a_name_above_many_records_is_a_heading() -> None:
    parsed = read({"version": "2", "reply": {"took": 3, "hits": [{"id": str(n)} for n in range(5)]}, "end": "yes"})
    assert shown(parsed)[:5] == [
        ("paragraph", "version: 2"),
        ("heading", "reply"),
        ("paragraph", "took: 3"),
        ("heading", "hits"),
        ("paragraph", "id: 0"),
    ]
    assert [block.level for block in parsed.blocks if block.level] == [1, 2]
    assert shown(parsed)[-1] == ("paragraph", "end: yes")


def test_a_name_above_many_named_records_is_a_heading_too() -> None:
    parsed = read({"ports": {name: {"depth": "9"} for name in ("Ayr", "Bar", "Cork", "Deal", "Eden")}})
    assert shown(parsed)[:2] == [("heading", "ports"), ("paragraph", "Ayr:\n  depth: 9")]
    assert len(parsed.blocks) == 6


def test_records_in_records_are_indented() -> None:
    parsed = read({"order": [{"item": "rope", "parts": [{"n": 1, "m": 2}, [["deep"]]]}]})
    assert parsed.text == "order:\n  - item: rope\n    parts:\n      - n: 1\n        m: 2\n      - - - deep"


def test_lines_of_a_string_are_indented_below_its_name() -> None:
    assert read({"text": "First line.\n\nSecond\tline.\r\n", "x": {}}).text == (
        "text:\n  First line.\n  Second\tline.\nx: {}"
    )


def test_long_records_are_cut_at_lines_and_prose_at_sentences() -> None:
    assert [block.kind for block in read([{f"name {n}": f"value {n}" for n in range(99)}]).blocks] == ["code"]
    assert [block.kind for block in read([{"text": "A sentence of it. " * 99}]).blocks] == ["paragraph"]


def test_what_is_escaped_is_unescaped_and_what_is_no_character_is_dropped() -> None:
    assert (
        raw(r'{"a\u0062": "\u05e9\u05dc\u05d5\u05dd \ud83d\ude00 \ud800x\u0000\u200b \u4e2d"}').text
        == "ab: שלום 😀 x 中"
    )


def test_a_scalar_is_a_document_too() -> None:
    assert raw('"Only this."').text == "Only this."
    assert code_of(b"{}", filename="a.json") == code_of(b" [] ", filename="a.json") == "empty"
    assert code_of(b" \n ", filename="a.json") == "empty"


def test_what_is_no_json_says_where() -> None:
    with pytest.raises(ParseError) as caught:
        raw('{"a": 1,\n "b" 2}')
    assert (caught.value.code, "line 2, column 6" in caught.value.detail) == ("malformed", True)
    assert code_of(b'{"a": [1, 2', filename="a.json") == "malformed"


def test_configuration_with_comments_is_kept_as_it_is() -> None:
    source = '// editor settings\n{\n  "url": "http://x", /* why */\n  "list": [1, 2,],\n}'
    assert shown(raw(source)) == [("code", source)]


def test_json_lines_called_json_are_read() -> None:
    assert shown(raw('{"a": 1}\n{"a": 2}\n')) == [("paragraph", "a: 1"), ("paragraph", "a: 2")]
    assert shown(raw('{\n"a": 1\n}\n{\n"a": 2\n}')) == [("paragraph", "a: 1"), ("paragraph", "a: 2")]


def test_json_lines_are_a_block_each_and_a_bad_line_is_a_note() -> None:
    parsed = raw('{"a": 1}\n\nnot json\n{"a": "x\u2028y"}\n[1, 2]\n{"cut": ', "a.jsonl")
    assert [text for _, text in shown(parsed)] == ["a: 1", "a: x\u2028y", "1, 2"]
    assert parsed.notes == ["2 of 5 lines are not JSON and were left out: 3, 6."]
    assert parsed.media_type == "application/x-ndjson"


def test_json_lines_without_a_good_one_are_malformed() -> None:
    assert code_of(b"one\ntwo\nthree\n", filename="a.jsonl") == "malformed"


def test_a_whole_value_called_json_lines_is_read() -> None:
    assert raw('{\n  "a": 1,\n  "b": 2\n}\n', "a.jsonl").text == "a: 1\nb: 2"


@pytest.mark.parametrize("text", ["[" * 10_000, "[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000])
def test_what_is_nested_too_deeply_is_malformed_at_once(text: str) -> None:
    began = time.monotonic()
    assert code_of(text.encode(), filename="a.json") == "malformed"
    assert time.monotonic() - began < 5


def test_deep_indentation_does_not_outgrow_the_text() -> None:
    text = '{"a":' * 150 + json.dumps(["x"] * 1000) + "}" * 150
    assert len(raw(text).text) < 10 * len(text)


def test_many_lines_take_linear_time() -> None:
    began = time.monotonic()
    parsed = raw('{"id": 1, "text": "some words"}\n' * 50_000, "a.jsonl")
    assert len(parsed.blocks) == 50_000
    assert time.monotonic() - began < 20


def test_unclosed_comments_take_linear_time() -> None:
    began = time.monotonic()
    assert code_of(b"/*" * 500_000, filename="a.json") == "malformed"
    assert time.monotonic() - began < 5
