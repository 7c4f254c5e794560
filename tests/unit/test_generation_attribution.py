"""Citing after writing: which sentence gets which markers, and where, however the text was cut."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from apps.documents.embedding import EmbeddingError
from apps.generation.attribution import LISTED, Attributor, Sources
from apps.generation.citations import cite
from apps.generation.structured import Malformed
from apps.generation.types import Embed, Passage
from tests.support.hits import hit

BACKUPS = "Backups run every night at 02:30 UTC. They are kept for 35 days."
LUNCH = "Lunch is served at noon. The canteen is closed on Sundays."
PASSAGES = (Passage(1, hit(BACKUPS)), Passage(2, hit(LUNCH)))
FREE = "You can go back about a month."


def attributed(text: str, passages: Sequence[Passage], embed: Embed | None) -> str:
    return Sources(passages, embed).cited(text)


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
        ("Lunch at noon... Lunch at noon?! 備份。", "Lunch at noon [2]... Lunch at noon [2]?! 備份。"),
        ("Lunch at noon!!", "Lunch at noon [2]!!"),
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
        attributor, out = Attributor(Sources(PASSAGES, None)), ""
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


def test_the_quote_is_what_the_sentence_was_found_to_mean() -> None:
    """The first sentence of the passage shares more words with it."""

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        rows = [[1, 0] if "closed" in text or "shut" in text else [0, 1] for text in texts]
        return np.array(rows, dtype=np.float32)

    passages = (Passage(1, hit("The hall opens late on Sundays in May. Sundays in May the canteen is closed.")),)
    sources = Sources(passages, embed)
    said = sources.cited("In May the hall is shut on Sundays, say kitchen folk.")
    assert said == "In May the hall is shut on Sundays, say kitchen folk [1]."
    (by_words,), (by_meaning,) = cite(said, passages), cite(said, passages, sources.quotes)
    assert by_words["quote"] == "The hall opens late on Sundays in May."
    assert by_meaning["quote"] == "Sundays in May the canteen is closed."


def told(*found: tuple[object, object, object]) -> str:
    named = [dict(zip(("sentence", "passage", "quote"), one, strict=True)) for one in found]
    return json.dumps({"sources": named})


def test_a_model_says_where_the_rest_is_from() -> None:
    sources = Sources(PASSAGES, None)
    text = f"Backups run every night. {FREE} Nobody sings."
    assert sources.unknown(text) == [FREE, "Nobody sings."]
    sources.learn(sources.unknown(text), told((1, 1, "“kept for\n35  days”")))
    said = sources.cited(text)
    assert said == "Backups run every night [1]. You can go back about a month [1]. Nobody sings."
    (citation,) = cite(said, PASSAGES, sources.quotes)
    assert citation["quote"] == BACKUPS, "both sentences that cite it"
    (citation,) = cite("You can go back about a month [1].", PASSAGES, sources.quotes)
    assert citation["quote"] == "They are kept for 35 days."


@pytest.mark.parametrize(
    "found",
    [
        (1, 1, "They are kept for 36 days."),  # nobody says so
        (1, 2, "They are kept for 35 days."),  # the other passage does
        (1, 1, "are kept"),  # too little to tell anything
        (1, 1, ""),
        (1, 3, "They are kept for 35 days."),
        (1, 0, "They are kept for 35 days."),
        (0, 1, "They are kept for 35 days."),
        (3, 1, "They are kept for 35 days."),
        (-1, 1, "They are kept for 35 days."),
        (1e30, 1, "They are kept for 35 days."),
        (2, 1, "They are kept for 35 days."),  # of a sentence with a figure that is nobody's
    ],
)
def test_a_model_is_believed_as_far_as_can_be_seen(found: tuple[object, object, object]) -> None:
    sources = Sources(PASSAGES, None)
    text = f"{FREE} You can go back 5 weeks."
    sources.learn(sources.unknown(text), told(found))
    assert sources.cited(text) == text and sources.quotes == {}


def test_numbers_may_be_written_as_json_allows_and_sources_come_in_any_order() -> None:
    sources = Sources(PASSAGES, None)
    quotes = ("Lunch is served at noon.", "Backups run every night at 02:30 UTC.", "They are kept for 35 days.")
    sources.learn([FREE], told((1.0, 2.0, quotes[0]), (1, 1, quotes[1]), (1, 1, quotes[2])))
    assert sources.of(FREE) == [1, 2], "two passages at most, each once"
    found = cite(f"{FREE[:-1]} [1][2].", PASSAGES, sources.quotes)
    assert [one["quote"] for one in found] == [quotes[1], quotes[0]]


@pytest.mark.parametrize(
    "said", ["", "none", "[]", '{"sources": [{"sentence": 1}]}', told((1, 1, None)), told(("1", 1, ""))]
)
def test_what_is_not_as_asked_for_is_refused(said: str) -> None:
    sources = Sources(PASSAGES, None)
    with pytest.raises(Malformed):
        sources.learn([FREE], said)
    assert sources.of(FREE) == []


def test_what_says_nothing_is_not_asked_for() -> None:
    text = "# Heading\n\nYes. The sources do not answer this question. "
    text += f"Do this:\n\n- Sing **aloud**\n\n```\nsing --aloud\n```\n\n{FREE} {FREE}"
    assert Sources(PASSAGES, None).unknown(text) == ["- Sing **aloud**", FREE]


def test_what_comes_after_a_sentence_of_unknown_source_waits() -> None:
    sources = Sources(PASSAGES, None)
    attributor = Attributor(sources, waits=True)
    out = []
    for piece in ("Yes. Lunch is served ", "at noon. ", f"{FREE} ", "Backups run every night. ", "They are"):
        attributor.add(piece)
        out.append(attributor.take())
    assert out == ["Yes.", "", " Lunch is served at noon [2].", "", ""]
    sources.learn(sources.unknown(attributor.text), told((1, 1, "They are kept for 35 days.")))
    rest = attributor.take(final=True)
    assert rest == " You can go back about a month [1]. Backups run every night [1]. They are"


def test_a_quote_is_found_however_its_white_space_is() -> None:
    """A model is shown `[3]` as `[ 3 ]`, so that it cannot be taken for a marker."""
    passage = Passage(1, hit("The list items[3] is  the\nfourth.  Counting starts at nought here."))
    sources = Sources([passage], None)
    sources.learn([FREE], told((1, 1, "items[ 3 ] is the fourth")))
    (citation,) = cite(f"{FREE[:-1]} [1].", [passage], sources.quotes)
    assert citation["quote"] == "The list items[3] is  the\nfourth."


@pytest.mark.parametrize(
    ("text", "quote", "found"),
    [
        ("| Planet | Song |\n|----------|----------|\n| Mars | none |", "----------", None),
        ("# Songs of Mars\n\nNobody sings there.", "Songs of Mars", None),  # a heading says nothing
        ("備份保留三十五天。每晚執行。", "備份保留三十五天。", "備份保留三十五天。"),
        ("Words. " * 200 + "The end is near.", "Words. " * 190, None),
        ("Words. " * 200 + "The end is near.", "end is near", "The end is near."),
    ],
)
def test_only_words_are_a_quote(text: str, quote: str, found: str | None) -> None:
    passage = Passage(1, hit(text))
    sources = Sources([passage], None)
    sources.learn([FREE], told((1, 1, quote)))
    assert sources.of(FREE) == ([1] if found else [])
    if found:
        assert cite(f"{FREE[:-1]} [1].", [passage], sources.quotes)[0]["quote"] == found


def test_the_quote_is_found_again_however_the_sentence_ends() -> None:
    for end in (".", "...", "?!", "", "。"):
        sources = Sources(PASSAGES, None)
        sentence = FREE[:-1] + end
        sources.learn([sentence], told((1, 1, "They are kept for 35 days.")))
        (citation,) = cite(sources.cited(sentence), PASSAGES, sources.quotes)
        assert citation["quote"] == "They are kept for 35 days."


def test_a_model_that_names_sources_without_end_is_not_listened_to_for_ever() -> None:
    sources = Sources(PASSAGES, None)
    nowhere, there = (1, 1, "They are kept for ever."), (1, 1, "They are kept for 35 days.")
    sources.learn([FREE], told(*[nowhere] * LISTED, there))
    assert sources.of(FREE) == []
    sources.learn([FREE], told(*[nowhere] * (LISTED - 1), there))
    assert sources.of(FREE) == [1]
