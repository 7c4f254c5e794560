"""Units: a text's sentences, items, rows and lines, each at its exact place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.generation.units import units


def split(text: str, *headings: str) -> list[tuple[str, str]]:
    return [(unit.kind, text[unit.start : unit.end]) for unit in units(text, headings)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        (
            "Dr. Smith paid 3.5 dollars, e.g. to Mr. Jones. Then left.",
            ["Dr. Smith paid 3.5 dollars, e.g. to Mr. Jones.", "Then left."],
        ),
        ("It is in the U.S. The other is not.", ["It is in the U.S.", "The other is not."]),
        ("J. R. R. Tolkien wrote it. He did.", ["J. R. R. Tolkien wrote it.", "He did."]),
        ('He said "stop." Then he went.', ['He said "stop."', "Then he went."]),
        ("It was so.[3] Now it is not.", ["It was so.[3]", "Now it is not."]),
        ("これは文です。次の文です！終わり", ["これは文です。", "次の文です！", "終わり"]),
        ("彼は「はい。」と言った。次。", ["彼は「はい。」", "と言った。", "次。"]),
        ("A line\nthat goes on. Another.", ["A line\nthat goes on.", "Another."]),
        ("Version 2. is out", ["Version 2. is out"]),
    ],
)
def test_running_text_is_cut_at_its_sentences(text: str, sentences: list[str]) -> None:
    assert split(text) == [("prose", sentence) for sentence in sentences]


def test_blocks_are_units_of_their_own() -> None:
    text = """# Title
Intro sentence. Second one.

Setext
------
- first item. It has two sentences.
  and a second line
- second item
1. numbered

| a | b |
|---|---|
| 1 | 2 |
x | y | z

```sh
make up
# a comment
```
End."""
    assert split(text) == [
        ("heading", "# Title"),
        ("prose", "Intro sentence."),
        ("prose", "Second one."),
        ("heading", "Setext\n------"),
        ("item", "- first item. It has two sentences.\n  and a second line"),
        ("item", "- second item"),
        ("item", "1. numbered"),
        ("row", "| a | b |"),
        ("rule", "|---|---|"),
        ("row", "| 1 | 2 |"),
        ("row", "x | y | z"),
        ("rule", "```sh"),
        ("code", "make up"),
        ("code", "# a comment"),
        ("rule", "```"),
        ("prose", "End."),
    ]


def test_a_line_that_repeats_a_heading_is_one() -> None:
    assert split("Opening hours\nWe open at nine.", "Opening hours") == [
        ("heading", "Opening hours"),
        ("prose", "We open at nine."),
    ]


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["# h", "- a. b", "| r |", "|--|", "```", "~~~", "", "===", "A b. C d.", "文。字", "  x", "1. y"]
        ),
        st.text(),
    )
)


@given(LINES)
def test_units_cover_the_text_in_order_without_overlap(lines: list[str]) -> None:
    text = "\n".join(lines)
    at = 0
    for unit in units(text):
        assert at <= unit.start < unit.end <= len(text)
        assert not text[at : unit.start].strip(), "only white space lies between units"
        piece = text[unit.start : unit.end]
        assert piece == piece.strip()
        at = unit.end
    assert not text[at:].strip()


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("make up\n```\n\nThen wait.\n\n```sh\nls\n```", ["code", "rule", "prose", "rule", "code", "rule"]),
        ("make up\nmake down\n```", ["code", "code", "rule"]),
        ("Do this:\n```\nmake up\n```\n\nThen wait.", ["prose", "rule", "code", "rule", "prose"]),
        ("Do this:\n\n```\n\nmake up", ["prose", "rule", "code"]),
        ("```\n\nmake up", ["rule", "code"]),
    ],
)
def test_a_text_cut_out_of_the_middle_of_code_begins_with_code(text: str, kinds: list[str]) -> None:
    assert [unit.kind for unit in units(text)] == kinds
