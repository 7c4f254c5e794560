"""Which model is asked first."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from apps.generation.llm import FakeLLM
from apps.generation.routing import needs_large, order
from apps.generation.types import Passage
from tests.support.hits import passages

FAST, LARGE = FakeLLM(model="small"), FakeLLM(model="big")
PASSAGES = passages(*(f"Passage {number}." for number in range(8)))


def of(documents: int, *, title: str | None = None) -> list[Passage]:
    """The passages, spread over so many documents."""
    ids = [uuid4() for _ in range(documents)]
    return [
        Passage(
            passage.marker,
            replace(passage.hit, document_id=ids[at % documents], title=title or f"Title {at % documents}"),
        )
        for at, passage in enumerate(PASSAGES)
    ]


@pytest.mark.parametrize(
    ("question", "found", "large"),
    [
        ("When do backups run?", of(1), False),
        ("When do backups run?", of(4), False),
        ("When do backups run, and who may stop them? And where are they kept?", of(1), True),
        ("什么时候备份？存在哪里？", of(1), True),
        ("Explain " + "what happens to a document after it was accepted, " * 10, of(1), True),
        ("When do backups run?", of(5), True),
        ("When do backups run?", of(2, title="Backups"), True),
        ("When do backups run?", [], False),
    ],
)
def test_what_is_hard_goes_to_the_large_model(question: str, found: list[Passage], large: bool) -> None:
    assert needs_large(question, found) == large
    assert order([FAST, LARGE], "auto", question, found)[0] is (LARGE if large else FAST)


def test_who_is_wanted_goes_first_and_the_other_stands_in() -> None:
    assert order([FAST, LARGE], "fast", "Why? Why?", ()) == [FAST, LARGE]
    assert order([FAST, LARGE], "large", "Why?", ()) == [LARGE, FAST]
    assert order([LARGE, FAST], "big", "Why?", ()) == [LARGE, FAST], "by its name it stands first already"
    assert order([FAST], "large", "Why?", ()) == [FAST]
