"""The extractive answerer: quotes what answers, and nothing when nothing does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from apps.documents.embedding import EmbeddingError, Vectors, get_embedder
from apps.generation.llm.extractive import ExtractiveLLM, choose, compose
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
    return "".join(compose(choose(question, passages(*texts), embed), max_tokens=max_tokens))


@pytest.mark.parametrize(
    ("question", "holds"),
    [
        ("When does the office open?", "The office opens at nine. [2]"),
        ("Is parking free?", "Parking is free on Sundays. [2]"),
        ("Where is data kept?", "Data is kept in the directory `.data/`"),
        ("Which port is the page at?", "The page is then at port 8123. [1]"),
        ("How do I start everything?", "Start everything with these two commands:\n```\nmake install\nmake up [1]"),
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


def test_the_first_quote_always_fits() -> None:
    found = answer("Is parking free? When does the office open?", OFFICE, max_tokens=1)
    assert found.count("[1]") == 1


def test_the_backend_says_what_it_read_and_abstains() -> None:
    async def read(question: str, found: tuple[Passage, ...]) -> list[Delta]:
        async with aclosing(ExtractiveLLM().stream(Task(question, found, (), Options()))) as deltas:
            return [delta async for delta in deltas]

    deltas = asyncio.run(read("When does the office open?", passages(OFFICE)))
    assert deltas[-1].usage is not None and deltas[-1].usage.prompt_tokens > 20
    assert [delta.text for delta in asyncio.run(read("zebras?", passages(OFFICE)))] == [ABSTENTION, ""]
    assert asyncio.run(read("zebras?", passages("# Only a heading")))[0].text == ABSTENTION
