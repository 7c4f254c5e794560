"""HTML tables: cells in their columns, columns' names in long ones; and what is nested too deeply."""

from __future__ import annotations

import time

import pytest

from apps.documents.parsing import parse
from tests.support.parsed import code_of, shown


def test_cells_that_cover_several_places_keep_the_others_in_their_columns() -> None:
    page = (
        "<table><tr><th>group<th>name<th>count<tr><td rowspan=2>Group0<td>number 0<td>1<tr><td>number 1<td>2"
        "<tr><td colspan=2>Both<td>3</table>"
    )
    rows = "group | name | count\nGroup0 | number 0 | 1\n | number 1 | 2\nBoth |  | 3"
    assert shown(parse(page.encode(), media_type="text/html")) == [("table", rows)]


@pytest.mark.parametrize(
    "rows",
    [
        "<tr>" + "<td colspan=1000 rowspan=65534>x" * 300 + "<tr><td>y" * 3_000,
        "<tr><td colspan=1000 rowspan=65534>x" * 2_000,
        "<tr><td colspan=1000>x<td>y" * 2_000,
    ],
)
def test_cells_that_cover_almost_nothing_but_emptiness_are_read_as_they_come(rows: str) -> None:
    page = f"<table>{rows}</table>"
    text = parse(page.encode(), media_type="text/html").text
    assert len(text) < 30 * len(page)
    assert text.count("x") == page.count("x") and text.count("y") == page.count("y")


@pytest.mark.parametrize("head", ["<thead>{}</thead>", "{}"])
@pytest.mark.parametrize("caption", ["", "<caption>Prices of the harbour</caption>"])
def test_cells_of_a_long_table_carry_their_columns_names(head: str, caption: str) -> None:
    names = "<tr><th>item</th><th>price</th></tr>"
    rows = "".join(f"<tr><td>rope {n}</td><td>{n}.50</td></tr>" for n in range(200))
    page = f"<p>Before.<table>{caption}{head.format(names)}<tbody>{rows}</tbody></table>"
    *before, (kind, table) = shown(parse(page.encode(), media_type="text/html"))
    assert kind == "table" and table.splitlines()[0] == "item | price" and len(table.splitlines()) == 201
    assert table.splitlines()[150] == "item: rope 149 | price: 149.50"
    assert [text for _, text in before] == ["Before."] + (["Prices of the harbour"] if caption else [])


def test_a_page_that_is_nested_too_deeply_is_refused_at_once() -> None:
    began = time.monotonic()
    assert code_of(b"<div>" * 200_000 + b"x" + b"</div>" * 200_000, media_type="text/html") == "malformed"
    assert code_of(b"<div></b>" * 200_000 + b"x", media_type="text/html") == "malformed"
    assert time.monotonic() - began < 10


def test_many_elements_beside_one_another_are_not_nested() -> None:
    scripts = "<script>if (a<b) c</script><!-- <div> -->" * 15_000
    page = "<p>Text.<br><div>More.</div>" * 15_000 + scripts
    assert parse(page.encode(), media_type="text/html").text.startswith("Text.")


def test_lists_nested_without_end_are_not_indented_without_end() -> None:
    [(kind, text)] = shown(parse(b"<ul><li>a" * 3_000, media_type="text/html"))
    assert kind == "list" and text.startswith("- a\n  - a\n    - a")
    assert [line.strip() for line in text.splitlines()] == ["- a"] * 3_000
    assert len(text) < 50 * 3_000
