"""Markdown without the parser, where a text is headings and paragraphs only."""

from __future__ import annotations

from random import Random

import pytest

from apps.documents.parsing import parse
from apps.documents.parsing.markup import markdown

_PIECES = (
    *(
        "a",
        "b c",
        "\n",
        "\n",
        "\n\n",
        " ",
        "# ",
        "#",
        "## x",
        "###### ",
        "####### ",
        "\t",
        "   ",
        "1",
        "1.",
        "2)",
        "10 x",
    ),
    *("é", "\u00a0", "\u2028", "\u0661. x", "²", "'q'", "(x)", "a | b", "---", "|", "x\\", "!", "[a]: b", "]", "&amp;"),
)


def test_headings_and_paragraphs_are_found_as_the_parser_finds_them() -> None:
    dice = Random(5)
    simple = 0
    for _ in range(20_000):
        text = "".join(dice.choices(_PIECES, k=dice.randrange(1, 9)))
        if not markdown._MARKED.search(text):
            simple += 1
            assert markdown._pieces(text, 0) == markdown._parsed(text, 0), repr(text)
    assert simple > 2_000


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("# A title\nA line.\nAnother.\n\nMore.\n", ["heading", "paragraph", "paragraph"]),
        ("---\ntitle: x\n---\n\nA line.\n## Below it\n", ["paragraph", "heading"]),
        ("1984 was a book.\n\n1. It is a list.\n", ["paragraph", "list"]),
        ("A title\n=======\n\nA line.\n", ["heading", "paragraph"]),
        ("a | b\n--- | ---\n1 | 2\n", ["table"]),
    ],
)
def test_what_may_be_more_is_left_to_the_parser(text: str, kinds: list[str]) -> None:
    assert [block.kind for block in parse(text.encode(), filename="a.md").blocks] == kinds
