"""Citing after writing: which sentence gets which markers, and where, however the text was cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from apps.documents.embedding import EmbeddingError
from apps.generation.attribution import Attributor, attributed
from apps.generation.types import Passage
from tests.support.hits import hit

BACKUPS = "Backups run every night at 02:30 UTC. They are kept for 35 days."
LUNCH = "Lunch is served at noon. The canteen is closed on Sundays."
PASSAGES = (Passage(1, hit(BACKUPS)), Passage(2, hit(LUNCH)))


def nothing(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    raise AssertionError("not to be asked")


@pytest.mark.parametrize(
    ("said", "cited"),
    [
        ("The backups run every night at 02:30 UTC.", "The backups run every night at 02:30 UTC [1]."),
        ("Backups run at 03:30 UTC every night.", "Backups run at 03:30 UTC every night."),  # a figure of nobody's
        ("Lunch is at noon! Backups are kept for 35 days", "Lunch is at noon [2]! Backups are kept for 35 days [1]"),
        ("- Lunch is served at noon\n- The moon is far", "- Lunch is served at noon [2]\n- The moon is far"),
        ("| Lunch | noon |\n|---|---|\n| served | noon |", "| Lunch | noon |\n|---|---|\n| served | noon [2] |"),
        ("```\nlunch served noon\n```", "```\nlunch served noon\n```"),
        ("# Lunch served at noon\n\nYes.", "# Lunch served at noon\n\nYes."),
        ("", ""),
        ("  ", "  "),
    ],
)
def test_a_sentence_is_given_the_passage_whose_words_it_has(said: str, cited: str) -> None:
    assert attributed(said, PASSAGES, None) == cited


def test_the_text_is_the_same_whatever_pieces_it_comes_in() -> None:
    said = f"{BACKUPS} {LUNCH}\n\n- Lunch at noon.\n- Backups e.g. at night. \n\nThe end"
    whole = attributed(said, PASSAGES, None)
    assert whole.count("[1]") >= 2 and whole.count("[2]") >= 2
    for size in (1, 2, 3, 7, 50):
        attributor, out = Attributor(PASSAGES, None), ""
        for at in range(0, len(said), size):
            if attributor.add(said[at : at + size]):
                out += attributor.take()
        assert out + attributor.take(final=True) == whole
        for n in (1, 2):
            whole_without = whole.replace(f" [{n}]", "")
            assert f"[{n}]" not in whole_without
    assert whole.replace(" [1]", "").replace(" [2]", "") == said


def test_a_sentence_of_two_passages_cites_both() -> None:
    said = "Lunch is served at noon and backups run every night."
    assert attributed(said, PASSAGES, None) == "Lunch is served at noon and backups run every night [1][2]."


def test_the_same_in_other_words_is_found_by_meaning() -> None:
    """Vectors by hand: whatever speaks of the canteen or eating is one direction."""
    asked: list[int] = []

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        asked.append(len(texts))
        rows = [[1, 0] if "canteen" in text or "eat" in text else [0, 1] for text in texts]
        return np.array(rows, dtype=np.float32)

    said = "You cannot eat on Sundays. You cannot eat on 3 Sundays. Nobody sings."
    assert (
        attributed(said, PASSAGES, embed) == "You cannot eat on Sundays [2]. You cannot eat on 3 Sundays. Nobody sings."
    )
    assert asked == [4, 1, 1, 1], "the passages once"


def test_words_alone_decide_where_nothing_embeds() -> None:
    def broken(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        raise EmbeddingError("unavailable", "away", retryable=True)

    assert attributed("Lunch is served at noon. You cannot eat.", PASSAGES, broken) == (
        "Lunch is served at noon [2]. You cannot eat."
    )
    assert attributed("Lunch is served at noon.", PASSAGES, nothing) == "Lunch is served at noon [2]."
