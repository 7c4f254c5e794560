"""Citations: verbatim, in place, one per marker - for any text."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.generation.citations import cite, ground, split, support
from apps.generation.markers import MARKER, MarkerFilter
from apps.generation.prompts import number
from apps.generation.words import words
from tests.support.hits import hit, passages

GUIDE = "Backups run every night at 02:30 UTC.  They are\nkept for 35 days. Restoring takes ten minutes."


def test_a_marker_belongs_to_the_sentence_that_it_follows() -> None:
    found = split("First claim [1]. Second claim. [2][3] Third.[1]\n\nNo marker here.\n- An item [2]")
    assert [(sentence.text, sentence.markers) for sentence in found] == [
        ("First claim .", (1,)),
        ("Second claim.", (2, 3)),
        ("Third.", (1,)),
        ("No marker here.", ()),
        ("- An item", (2,)),
    ]
    answer = "これは文です。[1]次です。[2]"
    assert [(answer[s.start : s.end], s.markers) for s in split(answer)] == [
        ("これは文です。[1]", (1,)),
        ("次です。[2]", (2,)),
    ]


@pytest.mark.parametrize(
    ("sentence", "quote"),
    [
        ("They are kept for 35 days.", "They are\nkept for 35 days."),
        ("It takes ten minutes to restore.", "Restoring takes ten minutes."),
        ("Backups run nightly at 02:30.", "Backups run every night at 02:30 UTC."),
        ("Nothing of this stands there.", "Backups run every night at 02:30 UTC."),
    ],
)
def test_the_quote_is_the_closest_verbatim_sentence(sentence: str, quote: str) -> None:
    span = support(sentence, hit(GUIDE))
    assert GUIDE[span.start : span.end] == quote


def test_one_citation_covers_all_sentences_that_cite_a_passage() -> None:
    answer = "Backups run every night at 02:30 UTC. [1] Parking is free. [2] Restoring takes ten minutes. [1]"
    found = cite(answer, number([hit(GUIDE, start=100, version=4), hit("Parking is free.")]))
    assert [citation["marker"] for citation in found] == [1, 2]
    assert found[0]["quote"] == GUIDE
    assert (found[0]["start"], found[0]["end"], found[0]["version"]) == (100, 100 + len(GUIDE), 4)


def test_grounding_counts_supported_sentences() -> None:
    answer = "Backups run every night [1]. They are kept for 36 days [1]. Cats sleep all day [1]."
    sentences, grounded = ground(answer, passages(GUIDE))
    assert [sentence["supported"] for sentence in sentences] == [True, False, False]
    assert grounded == pytest.approx(1 / 3, abs=1e-4)
    assert all(sentence["text"] in answer and sentence["citations"] == [1] for sentence in sentences)
    assert ground("Backups run every night.", passages(GUIDE))[1] == 0.0, "an answer that cites nothing"
    assert ground("", passages(GUIDE)) == ([], 0.0)


def test_a_sentence_that_cites_nothing_is_not_supported() -> None:
    sentences, grounded = ground(
        "Backups run every night at 02:30 UTC. [1] They are kept for 35 days.", passages(GUIDE)
    )
    assert [(sentence["supported"], sentence["citations"]) for sentence in sentences] == [(True, [1]), (False, [])]
    assert grounded == 0.5
    assert ground("Backups run every night at 02:30 UTC. [9]", passages(GUIDE))[1] == 0.0, "no such passage"
    items = "Backups:\n- They run every night at 02:30 UTC.\n- They are kept for 35 days. [1]"
    sentences, _ = ground(items, passages(GUIDE))
    assert [sentence["supported"] for sentence in sentences] == [True, False, True], "each item is a claim"


def test_what_leads_to_a_list_cites_what_its_items_cite() -> None:
    answer = "Of backups this is known:\n\n- They run every night. [1]\n- They are kept for 35 days. [1]"
    sentences, grounded = ground(answer, passages("Of backups this is known. They run every night, kept for 35 days."))
    assert sentences[0] == {"text": "Of backups this is known:", "supported": True, "citations": [1]}
    assert grounded == 1.0
    sentences, _ = ground(answer.replace("this is known", "zebras eat grass"), passages(GUIDE))
    assert not sentences[0]["supported"], "what it says must stand there too"
    assert ground("Of backups this is known:\n\nThey run. [1]", passages(GUIDE))[0][0]["citations"] == []


def test_code_and_tables_are_one_claim_each() -> None:
    code = "Do this: [1]\n```sh\nmake install\n\nmake up\n```\n[2] Then wait. [1]"
    assert [(sentence.text, sentence.markers) for sentence in split(code)] == [
        ("Do this:", (1,)),
        ("make install\n\nmake up", (2,)),
        ("Then wait.", (1,)),
    ]
    table = "| a | b |\n|---|---|\n| c | d | [1]\n| e | f | [2]\n\n| g | h |\n\n| i | j | [1]"
    assert [sentence.markers for sentence in split(table)] == [(1,), (2,), (), (1,)]
    two = "```\none\n```\n```\ntwo\n```\n[1]"
    assert [(sentence.text, sentence.markers) for sentence in split(two)] == [("one", ()), ("two", (1,))]


TEXT = st.text(min_size=1, max_size=120)


@given(
    st.lists(TEXT, min_size=1, max_size=4), st.lists(st.tuples(TEXT, st.integers(1, 6)), max_size=5), st.integers(0, 50)
)
def test_every_marker_has_a_citation_in_place(texts: list[str], claims: list[tuple[str, int]], start: int) -> None:
    hits = [hit(text, start=start) for text in texts]
    kept = MarkerFilter(range(1, len(hits) + 1))
    answer = kept.feed("".join(f"{claim} [{marker}] " for claim, marker in claims)) + kept.close()
    found = cite(answer, number(hits))
    assert [citation["marker"] for citation in found] == list(
        dict.fromkeys(int(marker.group(1)) for marker in MARKER.finditer(answer))
    )
    for citation in found:
        text = texts[citation["marker"] - 1]
        assert text[citation["start"] - start : citation["end"] - start] == citation["quote"]
        assert citation["sha256"] == hashlib.sha256(citation["quote"].encode()).hexdigest()
    sentences, grounded = ground(answer, number(hits))
    assert 0 <= grounded <= 1
    assert all(sentence["text"] in answer for sentence in sentences)


@pytest.mark.parametrize(
    ("sentence", "source"),
    [
        ("No.", "Backups are encrypted."),
        ("They do not.", "Backups are encrypted."),
        ("Backups do not run every night.", "Backups run every night at 02:30 UTC."),
        ("Backups are encrypted.", "Backups are not encrypted."),
        ("The library won't open", "The library won't open on Mondays. It is open at ten"),
        ("बिल्ली काली है और कुत्ता सफेद।", "बैकअप हर रात दो बजे चलते हैं और पैंतीस दिनों तक रखे जाते हैं।"),
    ],
)
def test_what_a_source_does_not_say_is_not_supported(sentence: str, source: str) -> None:
    judged = ground(f"{sentence} [1]", passages(source))[0][0]["supported"]
    assert judged is sentence.startswith("The library"), "this alone stands there"


def test_a_figure_stands_in_what_is_cited_and_not_elsewhere_in_the_passage() -> None:
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight")
    between = " ".join(f"Nothing of the sort is told by sentence {word}." for word in words)
    passage = passages(f"The large plan costs 99 euros a month. {between} Copies are kept for 35 days.")
    claims, grounded = ground("The large plan costs 35 euros a month [1]. The large plan costs 99 euros [1].", passage)
    assert [claim["supported"] for claim in claims] == [False, True] and grounded == 0.5


def test_what_both_deny_is_supported() -> None:
    source = passages("Backups are not encrypted. Without a key none can be restored.")
    for sentence in ("The backups are not encrypted. [1]", "Without the key, no backup can be restored. [1]"):
        assert ground(sentence, source)[1] == 1.0
    plain = passages("Backups run every night. Nobody has to start them.")
    assert ground("The backups run each night, at night. [1]", plain)[1] == 1.0


@pytest.mark.parametrize(
    ("sentence", "source"),
    [
        ("- The fee is 10", "The fee is 1000 euros. It takes 10 days."),
        ("- The fee is 10", "The fee is 10.50 euros. It takes 10 days."),
        ("- The library is open", "The library is opened never by anyone."),
        ("- able to run is it", "It is unable to run is it."),
    ],
)
def test_no_word_or_figure_is_cut_for_a_quote(sentence: str, source: str) -> None:
    span = support(sentence, hit(source))
    assert source[span.start : span.end].strip(".") != sentence.removeprefix("- ")
    before, after = source[: span.start][-1:], source[span.end :][:1]
    assert not before.isalnum() and not after.isalnum()


def test_words_keep_their_vowel_signs_and_accents() -> None:
    assert words("हिन्दी की किताब") == ["हिन्दी", "की", "किताब"]
    assert words("re\u0301sume\u0301") == words("résumé") == ["résumé"]
    assert words("ភាសា") == ["ភា", "ាស", "សា"]
