"""Where the pages of a text begin: what is stored tells of every place the page that its block has."""

from __future__ import annotations

from bisect import bisect_right
from email.message import EmailMessage
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from apps.documents.parsing import parse
from apps.documents.parsing.types import Block, Parsed
from apps.documents.prepare import pages
from tests.support.papers import archive, pdf, sentences


def page_at(parsed: Parsed, position: int) -> int | None:
    """As the queries tell it: page_numbers[width_bucket(position, page_starts)]."""
    starts, numbers = pages(parsed)
    at = bisect_right(starts or [], position)
    return numbers[at - 1] if numbers and at else None


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3), st.none() | st.integers(1, 4)), max_size=30))
def test_every_place_of_a_block_is_on_its_page(described: list[tuple[int, int, int | None]]) -> None:
    blocks, at = [], 0
    for length, gap, page in described:
        blocks.append(Block("paragraph", at + gap, at + gap + length, 0, page))
        at += gap + length
    parsed = Parsed("x" * at, blocks)
    for block in blocks:
        assert {page_at(parsed, position) for position in range(block.start, block.end)} == {block.page}
    starts, numbers = pages(parsed)
    if any(block.page for block in blocks):
        assert starts and numbers and sorted(set(starts)) == starts and len(numbers) == len(starts)
        assert numbers[0] is not None and all(one != other for one, other in pairwise(numbers))
    else:
        assert starts is None and numbers is None


def test_an_archives_members_count_their_own_pages_from_their_names_on() -> None:
    parsed = parse(archive({"a.txt": 0, "b.pdf": 1, "c.pdf": 2, "d.txt": 0, "e.pptx": 2}), filename="x.zip")
    told = [(number, parsed.text[start:].split("\n")[0]) for start, number in zip(*pages(parsed), strict=True)]
    first = "Note 0 of {} says berth-2 is open 0 days."
    assert told == [
        (1, "b.pdf"),
        (2, first.format("c.pdf")),
        (None, "d.txt"),
        (1, "e.pptx"),
        (2, "- " + first.format("e.pptx")),
    ]


def test_attachments_count_their_own_pages_below_a_message_without_any() -> None:
    message = EmailMessage()
    message["Subject"] = "Papers"
    message.set_content("See below.")
    for name in ("one.pdf", "two.pdf"):
        message.add_attachment(pdf(sentences(name, 1)), maintype="application", subtype="pdf", filename=name)
    message.add_attachment("Done.", filename="last.txt")
    parsed = parse(message.as_bytes(), filename="x.eml")
    found = {text: page_at(parsed, parsed.text.index(text)) for text in ("See below", "one.pdf", "two.pdf", "Done")}
    assert found == {"See below": None, "one.pdf": 1, "two.pdf": 1, "Done": None}
