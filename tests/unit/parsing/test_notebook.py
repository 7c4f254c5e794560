"""Notebooks: cells in their order with what they printed."""

from __future__ import annotations

import json
import time
from typing import Any

from apps.documents.parsing import Parsed, parse
from tests.support.parsed import code_of, shown


def notebook(*cells: dict[str, Any], **more: Any) -> Parsed:
    book = {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **more}
    return parse(json.dumps(book).encode(), filename="a.ipynb")


def markdown(text: str | list[str]) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": text}


def code(text: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "source": text, "outputs": list(outputs)}


def test_markdown_and_code_alternate() -> None:
    parsed = notebook(
        markdown(["# Harbour\n", "\n", "Some *prose*.\n"]), code("x = 1\n\nprint(x)"), markdown("## Part\n\n- a\n- b")
    )
    assert shown(parsed) == [
        ("heading", "# Harbour"),
        ("paragraph", "Some *prose*."),
        ("code", "x = 1\n\nprint(x)"),
        ("heading", "## Part"),
        ("list", "- a\n- b"),
    ]
    assert [block.level for block in parsed.blocks] == [1, 0, 0, 2, 0]
    assert (parsed.title, parsed.parser, parsed.media_type) == ("Harbour", "notebook/1", "application/x-ipynb+json")


def test_the_first_heading_is_the_title_unless_the_metadata_has_one() -> None:
    assert notebook(markdown("# One"), markdown("# Two")).title == "One"
    assert notebook(markdown("# One"), metadata={"title": "Zero"}).title == "Zero"


def test_what_was_printed_stands_below_the_code() -> None:
    stream = {"output_type": "stream", "name": "stdout", "text": ["one\n", "10%\r20%\r30%\n", "\x1b[31mred\x1b[0m\n"]}
    result = {"output_type": "execute_result", "data": {"text/plain": ["   a  b\n", "0  1  2"], "text/html": "<table>"}}
    error = {"output_type": "error", "ename": "ValueError", "evalue": "bad rope", "traceback": ["\x1b[0;31m..."]}
    assert [text for _, text in shown(notebook(code("f()", stream, result, error)))] == [
        "f()", "one\n30%\nred", "   a  b\n0  1  2", "ValueError: bad rope",
    ]  # fmt: skip


def test_images_are_left_out() -> None:
    figure = {
        "output_type": "display_data",
        "data": {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 640x480>"},
    }
    inline = "![a crane](data:image/png;base64,iVBORw0KGgo=) beside the quay"
    parsed = notebook(markdown(inline), code("plot()", figure))
    assert [text for _, text in shown(parsed)] == ["![a crane]() beside the quay", "plot()"]


def test_the_form_that_says_most_is_shown() -> None:
    html = {
        "output_type": "display_data",
        "data": {"text/plain": "<IPython.core.display.HTML object>", "text/html": "<p>Hi</p>"},
    }
    rich = {"output_type": "display_data", "data": {"text/plain": "<x>", "text/markdown": "**Bold**"}}
    assert [text for _, text in shown(notebook(code("f()", html, rich)))] == ["f()", "Hi", "**Bold**"]


def test_format_3_is_read() -> None:
    cells = [
        {"cell_type": "heading", "level": 1, "source": "Old"},
        {"cell_type": "code", "input": "x", "outputs": [{"output_type": "pyout", "text": ["42"]}]},
    ]
    parsed = parse(json.dumps({"worksheets": [{"cells": cells}], "nbformat": 3}).encode(), filename="a.ipynb")
    assert shown(parsed) == [("heading", "Old"), ("code", "x"), ("code", "42")]
    assert parsed.title == "Old"


def test_other_scripts_and_what_is_no_character() -> None:
    assert notebook(markdown("שלום 港 \ud800")).text == "שלום 港 "


def test_long_lines_of_output_take_linear_time() -> None:
    began = time.monotonic()
    for text in ("x" * 500_000, "x\r" * 250_000, "\x1b[" * 250_000, "data:" * 100_000):
        notebook(markdown(text[:100_000]), code("f()", {"output_type": "stream", "text": text}))
    assert time.monotonic() - began < 10


def test_odd_cells_do_no_harm() -> None:
    odd = [
        {},
        {"cell_type": "code"},
        {"cell_type": "markdown", "source": None},
        code("x", {"data": [], "output_type": 3}),
    ]
    assert notebook(*odd, {"cell_type": "raw", "source": "raw"}).text == "x\n\nraw"


def test_what_is_no_notebook_is_malformed() -> None:
    assert code_of(b'{"cells": [', filename="a.ipynb") == "malformed"
    assert code_of(b'{"a": 1}', filename="a.ipynb") == "malformed"
    assert code_of(b"[" * 10_000, filename="a.ipynb") == "malformed"
    assert code_of(b'{"cells": []}', filename="a.ipynb") == "empty"
