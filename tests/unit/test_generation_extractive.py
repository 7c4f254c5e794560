"""The extractive answerer: quotes what answers, and nothing when nothing does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from apps.documents.embedding import EmbeddingError, Vectors, get_embedder
from apps.documents.embedding.openai_compatible import estimate_tokens
from apps.generation.citations import cite, ground
from apps.generation.llm.extractive import ExtractiveLLM, choose, compose
from apps.generation.markers import MarkerFilter
from apps.generation.prompts import ABSTENTION
from apps.generation.types import Delta, Embed, Options, Passage, Task
from tests.support.hits import passages

README = """# Installing

Nothing else is needed on the machine. Start everything with these two commands:

```
make install
make up
```

The page is then at port 8123. Data is kept in the directory `.data/`[2]."""
OFFICE = "The office opens at nine. Parking is free on Sundays. The office is closed on public holidays."


@pytest.fixture(scope="module")
def embed() -> Embed:
    pytest.importorskip("onnxruntime")
    return get_embedder("local", cache_dir=Path(os.environ["EMBEDDING_CACHE_DIR"])).embed


def answer(question: str, *texts: str, embed: Embed | None = None, max_tokens: int = 1000) -> str:
    return "".join(compose(choose(question, passages(*texts), embed), max_tokens=max_tokens)[0])


@pytest.mark.parametrize(
    ("question", "holds"),
    [
        ("When does the office open?", "The office opens at nine. [2]"),
        ("Is parking free?", "Parking is free on Sundays. [2]"),
        ("Where is data kept?", "Data is kept in the directory `.data/`"),
        ("Which port is the page at?", "The page is then at port 8123. [1]"),
        (
            "How do I start everything?",
            "Start everything with these two commands: [1]\n```\nmake install\nmake up\n```\n[1]",
        ),
    ],
)
def test_the_sentence_that_answers_is_quoted(embed: Embed, question: str, holds: str) -> None:
    assert holds in answer(question, README, OFFICE, embed=embed)


@pytest.mark.parametrize("question", ["Who won the football world cup in 1974?", "What do zebras eat?"])
def test_nothing_is_quoted_for_another_topic(embed: Embed, question: str) -> None:
    assert answer(question, README, OFFICE, embed=embed) == ""
    assert answer(question, README, OFFICE) == ""


def test_without_an_embedder_words_decide() -> None:
    def broken(texts: Sequence[str]) -> Vectors:
        raise EmbeddingError("unreachable", "scripted", retryable=True)

    for embed in (None, broken):
        assert "The office opens at nine. [1]" in answer("When does the office open?", OFFICE, embed=embed)


def test_a_word_of_all_passages_is_known_in_each_of_its_forms(embed: Embed) -> None:
    told = {"When do backups run?": "Backup {} runs every night.", "When are orders paid?": "Order {} is paid at noon."}
    for question, text in told.items():
        for embedder in (embed, None):
            said = answer(question, *map(text.format, range(40)), embed=embedder)
            assert text.split("{} ")[1] in said


def test_the_same_sentence_is_quoted_once() -> None:
    assert answer("Is parking free on Sundays?", OFFICE, OFFICE, f"Note. {OFFICE}").count("Parking is free") == 1


def test_reading_order_is_kept_and_headings_do_not_answer() -> None:
    text = "# Parking\n\nParking is free on Sundays.\n\nParking costs money on Mondays."
    assert answer("Is parking free? What does parking cost?", text) == (
        "Parking is free on Sundays. [1] Parking costs money on Mondays. [1]"
    )


def test_a_quote_shows_on_one_line_without_its_own_markers() -> None:
    text = "Parking\n is free[1] on Sundays, see `a[0]`.[7]"
    assert answer("Is parking free on Sundays?", text) == "Parking is free[ 1 ] on Sundays, see `a[ 0 ]`. [1]"


TOUR = """# A tour

Ask about it in the shell:

```sh
curl "$URL/api/v1/answers" -d '{"question": "What happens when a worker dies?"}'
# What happens when a worker dies, indeed
```

When a worker stops, another one finishes its jobs."""


@pytest.mark.parametrize(
    "question",
    [
        "What happens when a worker dies?",
        "what happens  when a WORKER dies",
        "What happens, when a worker dies?!",
    ],
)
def test_what_repeats_the_question_is_no_answer(embed: Embed, question: str) -> None:
    for with_embedder in (embed, None):
        assert answer(question, TOUR, embed=with_embedder) == "When a worker stops, another one finishes its jobs. [1]"
    assert answer(question, TOUR.rpartition("\n\n")[0], embed=embed) == "", "nothing but the question is there"


def test_code_is_quoted_where_no_prose_answers(embed: Embed) -> None:
    code = "# Backups\n\nSee below.\n\n```\nrestore-backup --date 2026-01-31  # restore a backup of that date\n```\n"
    question = "How do I restore a backup of a date?"
    quoted = "```\nrestore-backup --date 2026-01-31  # restore a backup of that date\n```\n[1]"
    assert answer(question, code, embed=embed) == quoted
    prose = "To restore a backup of a date, press the button Restore."
    assert answer(question, code, prose, embed=embed) == f"{prose} [2]"
    assert answer(question, code.replace("# Backups\n\nSee below.\n\n```\n", ""), prose, embed=embed) == f"{prose} [2]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Is parking free?\n\nOn Sundays it is.", "On Sundays it is. [1]"),
        ("- Is parking free? On Sundays it is.", "Is parking free? [1] On Sundays it is. [1]"),
        ("| Is parking free? | On Sundays |\n| Is it big? | Yes |", "| Is parking free? | On Sundays | [1]"),
        ("Questions that people ask:\n- Is parking free?\n- Is it parking?", ""),
    ],
)
def test_a_question_in_the_text_leads_to_its_answer(text: str, expected: str) -> None:
    assert answer("Is parking free?", text) == expected


def test_a_few_words_that_stand_in_the_text_are_no_repeated_question() -> None:
    for question in ("parking free on Sundays", "Parking?", "Parking is free on Sundays."):
        assert answer(question, "Parking is free on Sundays. Parking free on Sundays costs nothing.") != ""


@pytest.mark.parametrize(
    "text",
    [
        README,
        "Restoring a backup takes these steps:\n\n- Stop it. Then wait.\n- Start it.\n\nDone.",
        "Restoring a backup costs:\n\n| what | price |\n|---|---|\n| a backup | 3 euros |\n| two | 5 euros |\n",
        "Restoring a backup needs `restore. Now` and more. Also start everything.",
        "Restoring a backup:\n```\nstart everything\n````\n`\nend\n```\n",
    ],
)
def test_everything_that_is_quoted_is_cited(text: str) -> None:
    found = passages(text)
    written = answer("How do I start everything after restoring a backup, and what does it cost?", text)
    kept = MarkerFilter([1])
    left = kept.feed(written) + kept.close()
    assert left == written and "[1]" in left
    assert cite(left, found) != []
    sentences, grounded = ground(left, found)
    assert grounded == 1.0, sentences


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("How do I start everything?", README),
        ("When does the office open and is parking free?", OFFICE),
        ("駐車場は無料ですか", "駐車場は日曜日は無料です。"),
        ("A list of things, and more?", "- A list. Of things.\n- And `more."),
        ("restore backup", "```\nrestore\nbackup `now`\n```"),
    ],
)
def test_what_is_quoted_keeps_to_max_tokens_with_its_marker(question: str, text: str) -> None:
    chosen = choose(question, passages(text), None)
    for max_tokens in range(12, 100):
        pieces, whole = compose(chosen, max_tokens=max_tokens)
        written = "".join(pieces)
        assert estimate_tokens(written) <= max_tokens
        assert "[1]" in written
        assert whole == (written == "".join(compose(chosen, max_tokens=1000)[0]))


def test_of_a_quote_that_does_not_fit_the_first_words_are_kept() -> None:
    pieces, whole = compose(choose("Is parking free?", passages(OFFICE), None), max_tokens=9)
    assert (pieces, whole) == (["Parking is free [1]"], False)
    pieces, whole = compose(choose("Is parking free?", passages(OFFICE), None), max_tokens=1)
    assert (pieces, whole) == (["Parking is free on Sundays."], False), "a marker does not fit; writing.py cuts"


def test_the_backend_says_why_it_ends_and_abstains() -> None:
    async def read(question: str, found: tuple[Passage, ...], **options: int) -> list[Delta]:
        async with aclosing(ExtractiveLLM().stream(Task(question, found, (), Options(**options)))) as deltas:
            return [delta async for delta in deltas]

    deltas = asyncio.run(read("When does the office open?", passages(OFFICE)))
    assert deltas[-1].finish_reason == "stop"
    assert asyncio.run(read("When does the office open?", passages(OFFICE), max_tokens=7))[-1].finish_reason == "length"
    assert [delta.text for delta in asyncio.run(read("zebras?", passages(OFFICE)))] == [ABSTENTION, ""]
    assert asyncio.run(read("zebras?", passages("# Only a heading")))[0].text == ABSTENTION


def test_the_references_of_a_text_are_no_markers() -> None:
    said = answer("When do backups run?", "Backups run every night at two [2, 3].", "Cats are grey.", "Dogs bark.")
    kept = MarkerFilter([1, 2, 3])
    assert kept.feed(said) + kept.close() == "Backups run every night at two [ 2, 3 ]. [1]"
