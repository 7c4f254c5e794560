"""CSV and its kind to rows."""

from __future__ import annotations

import time

import pytest

from apps.documents.parsing import Parsed, parse
from tests.support.parsed import code_of, shown


def csv(text: str | bytes, filename: str = "a.csv") -> Parsed:
    return parse(text if isinstance(text, bytes) else text.encode(), filename=filename)


def test_a_row_is_a_line_and_cells_are_joined() -> None:
    parsed = csv("name,price\nrope,9.50\nbuoy,12\n")
    assert shown(parsed) == [("table", "name | price\nrope | 9.50\nbuoy | 12")]
    assert (parsed.media_type, parsed.parser, parsed.title) == ("text/csv", "delimited/1", None)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    rows = [("item", "remark", "price"), ("rope", "long. and strong", "9"), ("buoy", "red", "12")]
    parsed = csv("\n".join(delimiter.join(row) for row in rows))
    assert parsed.text == "\n".join(" | ".join(row) for row in rows)


def test_decimal_commas_do_not_split_columns() -> None:
    assert csv("1,5;2,5;3,5\n4,5;5,5;6,5\n").text == "1,5 | 2,5 | 3,5\n4,5 | 5,5 | 6,5"


def test_commas_in_a_text_of_one_column_do_not_split_it() -> None:
    parsed = csv("remark\nIt rained, it poured, and it hailed\nNobody came\nDry, at last\nThe end\n")
    assert shown(parsed) == [
        ("paragraph", "remark"),
        ("paragraph", "It rained, it poured, and it hailed"),
        ("paragraph", "Nobody came"),
        ("paragraph", "Dry, at last"),
        ("paragraph", "The end"),
    ]


def test_quoted_cells_keep_delimiters_quotes_and_lines() -> None:
    parsed = csv('name,note\r\nrope,"two, or ""three""\r\nlines"\r\nbuoy, "a, b"\r\n')
    assert parsed.text == 'name | note\nrope | two, or "three" lines\nbuoy | a, b'


def test_what_excel_writes_about_the_delimiter_is_not_text() -> None:
    assert csv("\ufeffsep=;\r\na;b,c\r\n").text == "a | b,c"


def test_lines_above_the_table_are_paragraphs() -> None:
    parsed = csv("Report of the harbour\n\nitem,price,stock\nrope,9,4\nbuoy,12,5\n")
    assert shown(parsed) == [
        ("paragraph", "Report of the harbour"),
        ("table", "item | price | stock\nrope | 9 | 4\nbuoy | 12 | 5"),
    ]


def test_rows_of_different_lengths_are_all_kept() -> None:
    parsed = csv("a,b,c\n1,2\n3,4,5,6\n7,8,9\n10,11,12\n")
    assert parsed.text == "a | b | c\n1 | 2\n3 | 4 | 5 | 6\n7 | 8 | 9\n10 | 11 | 12"


def test_a_long_table_carries_its_column_names() -> None:
    parsed = csv("item,price\n" + "".join(f"thing {n},{n}\n" for n in range(50)))
    assert parsed.text.endswith("item: thing 49 | price: 49")


def test_tabs_come_first_in_what_is_declared_to_have_them() -> None:
    parsed = parse(b"a,b\tc,d\n1,2\t3,4\nonly one, here\n", media_type="text/tab-separated-values")
    assert parsed.text == "a,b | c,d\n1,2 | 3,4\nonly one, here"


def test_other_encodings_and_scripts() -> None:
    assert (
        csv("名前,年齢\n佐藤太郎,30\n三木英子,25\n".encode("cp932")).text == "名前 | 年齢\n佐藤太郎 | 30\n三木英子 | 25"
    )
    assert csv("اسم;سعر\nحبل;9\n".encode("utf-16")).text == "اسم | سعر\nحبل | 9"


def test_a_quote_that_is_never_closed_costs_no_row() -> None:
    rows = "".join(f"{n},thing {n}\n" for n in range(3000))
    parsed = csv(f'number,name\n0,"5 inch pipe\n{rows}')
    assert parsed.text.count("\n") == 3001
    assert 'number: 0 | name: "5 inch pipe\n' in parsed.text
    assert parsed.text.endswith("number: 2999 | name: thing 2999")


def test_a_very_long_cell_is_read() -> None:
    assert len(csv("a,b\n1," + "x" * 500_000 + "\n").text) > 500_000


def test_duplicate_rows_are_kept_and_blank_ones_left_out() -> None:
    assert csv("a,b\n1,2\n,\n\n1,2\n").text == "a | b\n1 | 2\n1 | 2"


def test_only_delimiters_or_white_space_is_empty() -> None:
    assert code_of(b",,,\n,,,\n", filename="a.csv") == "empty"
    assert code_of(b"  \n \n", filename="a.csv") == "empty"


def test_a_truncated_file_keeps_what_is_there() -> None:
    assert csv('a,b\n1,2\n3,"cut o').text == "a | b\n1 | 2\n3 | cut o"


def test_many_rows_take_linear_time() -> None:
    began = time.monotonic()
    parsed = csv("id,name,remark\n" + "".join(f"{n},thing,some words\n" for n in range(50_000)))
    assert parsed.text.count("\n") == 50_000
    assert time.monotonic() - began < 20
