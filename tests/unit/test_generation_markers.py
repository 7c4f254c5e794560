"""Markers: what a model writes becomes text in which every [n] names a passage, however it is cut."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apps.generation.markers import MARKER, MarkerFilter, markers, neutralise


def filtered(*pieces: str, valid: tuple[int, ...] = (1, 2, 3)) -> str:
    kept = MarkerFilter(valid)
    return "".join([kept.feed(piece) for piece in pieces] + [kept.close()])


@pytest.mark.parametrize(
    ("written", "leaves"),
    [
        ("Yes [1].", "Yes [1]."),
        ("Yes [9].", "Yes."),
        ("Yes [1, 2].", "Yes [1][2]."),
        ("Yes [1,9; 3].", "Yes [1][3]."),
        ("Yes [1-3].", "Yes [1][2][3]."),
        ("Yes [2–2][2].", "Yes [2][2]."),
        ("Yes [Source 2].", "Yes [2]."),
        ("Yes [passage 1, passage 3].", "Yes [1][3]."),
        ("Yes [^1] and 【2†source】.", "Yes [1] and [2]."),
        ("Yes [01].", "Yes [1]."),
        ("Yes ［2］。", "Yes [2]。"),
        ("Yes [1、2] or [9，3].", "Yes [1][2] or [3]."),
        ("Yes [1](https://example.org) [1][2](x)", "Yes [1] (https://example.org) [1][2] (x)"),
        ("Yes.\n[1]: https://example.org", "Yes.\n[1] : https://example.org"),
        ("As in [1]: so.", "As in [1]: so."),
        ("Yes [３].", "Yes [3]."),
        ("In [2024] it [0] was [12345678901234567890].", "In it was."),
        ("[9] Hello [7]", "Hello"),
        ("  Hello \n\n", "Hello"),
        ("A list [x] and [see the note] stay.", "A list [x] and [see the note] stay."),
        ("Use `items[0]` or `items[1]` [1].", "Use `items[ 0 ]` or `items[ 1 ]` [1]."),
        ("```\na[0]\n```\nThen [2].", "```\na[ 0 ]\n```\nThen [2]."),
        ("So:\n~~~\na[0]\n~~~\nThen [2].", "So:\n~~~\na[ 0 ]\n~~~\nThen [2]."),
        ("~~~\na[1] ``` b[2]\n~~~~\nThen [2].", "~~~\na[ 1 ] ``` b[ 2 ]\n~~~~\nThen [2]."),
        ("It is ~~old~~ new [1], ~~~ about ~3 [2].", "It is ~~old~~ new [1], ~~~ about ~3 [2]."),
        ("A stray ` tick\nand then [1].", "A stray ` tick\nand then [1]."),
        ("Copied [ 7 ] text.", "Copied [ 7 ] text."),
        ("It ends in [1", "It ends in"),
        ("It ends in [no", "It ends in [no"),
        ("[[9]1]", "[ 1]"),
        ("[1-9999]", ""),
        ("null \x00 and \ud800", "null  and \ufffd"),
    ],
)
def test_a_text_leaves_with_known_markers_only(written: str, leaves: str) -> None:
    assert filtered(written, valid=(1, 2, 3) if "[[9]1]" not in written else (2,)) == leaves


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "[",
                "]",
                "[1]",
                "[9]",
                " ",
                "\n",
                "`",
                "```",
                "1",
                "9",
                "٣",
                "3",
                "【",
                "】",
                "［",
                "］",
                "(",
                ":",
                "、",
                ",",
                "-",
                "[1, 2]",
                "a",
                "é",
                "。",
            ]
        ),
        st.text(max_size=4),
    ),
    max_size=30,
)


@given(PIECES)
@example(["[", "1" * 100, "[9]", "]"])
@example(["[", "1" * 100, "]"])
@example(["[", " ", "[9]", "1", "]"])
@settings(max_examples=600, deadline=None)
def test_every_marker_that_leaves_names_a_passage(pieces: list[str]) -> None:
    out = filtered("".join(pieces))
    assert all(re.fullmatch("[123]", found) for found in re.findall(r"\[(\d+)\]", out)), out
    assert "\x00" not in out
    out.encode()


@given(PIECES, st.data())
@settings(max_examples=600, deadline=None)
def test_the_cuts_between_deltas_do_not_change_the_answer(pieces: list[str], data: st.DataObject) -> None:
    whole = "".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    bounds = [0, *cuts, len(whole)]
    deltas = [whole[a:b] for a, b in pairwise(bounds)]
    assert filtered(*deltas) == filtered(whole) == filtered(*whole)


def test_text_without_brackets_leaves_at_once() -> None:
    kept = MarkerFilter([1])
    assert kept.feed("Postgres is") == "Postgres is"
    assert kept.feed(" the store [") == " the store"
    assert kept.feed("1") == ""
    assert kept.feed("].") == " [1]."


@given(st.text())
def test_neutral_text_has_no_markers(text: str) -> None:
    assert not MARKER.search(neutralise(f"{text}[3]{text}"))
    assert neutralise("see [3].") == "see [ 3 ]."


@given(PIECES)
@settings(max_examples=600, deadline=None)
def test_neutral_text_leaves_without_markers(pieces: list[str]) -> None:
    neutral = neutralise("".join(pieces))
    assert not MARKER.search(filtered(neutral)), neutral


def test_markers_are_listed_by_first_appearance() -> None:
    assert markers("a [3] b [1][3] c [2]") == [3, 1, 2]
