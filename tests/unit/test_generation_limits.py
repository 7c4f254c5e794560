"""max_tokens and stop: kept for writers without a server as a server keeps them, whoever reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.documents.embedding.openai_compatible import estimate_tokens
from apps.generation.llm import ExtractiveLLM, FakeLLM
from apps.generation.llm.base import LLM
from apps.generation.llm.fake import Step
from apps.generation.markers import MARKER
from apps.generation.prompts import ABSTENTION, is_abstention
from apps.generation.types import Options, Task
from apps.generation.writing import Draft, Limits, abstain, write
from tests.support.hits import passages

PASSAGES = passages("Backups run every night at 02:30 UTC. They are kept for 35 days.", "Parking is free on Sundays.")
QUESTION = "When do backups run every night, and how long are they kept?"


def written(llm: LLM, *, live: bool, question: str = QUESTION, **options: object) -> Draft:
    draft = Draft()
    task = Task(question, PASSAGES, (), Options(**options))  # type: ignore[arg-type]

    async def collect() -> str:
        async with aclosing(write(task, [llm], draft, live=live)) as pieces:
            return "".join([piece async for piece in pieces])

    assert asyncio.run(collect()) == draft.text
    return draft


def limited(pieces: Iterable[str], options: Options) -> tuple[str, str | None]:
    limits = Limits(options)
    text = "".join(limits.feed(piece) for piece in pieces) + limits.close()
    assert limits.tokens == estimate_tokens(text) <= options.max_tokens
    return text, limits.reason


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("llm", [ExtractiveLLM(), FakeLLM()], ids=["extractive", "fake"])
def test_no_more_is_written_than_max_tokens(llm: LLM, live: bool) -> None:
    whole = written(llm, live=live)
    assert whole.finish_reason == "stop" and whole.usage is not None
    assert whole.usage.prompt_tokens > 20
    needed = whole.usage.completion_tokens
    assert needed == estimate_tokens(whole.text)
    assert written(llm, live=live, max_tokens=needed).text == whole.text
    for max_tokens in range(1, needed):
        draft = written(llm, live=live, max_tokens=max_tokens)
        assert draft.usage is not None
        assert estimate_tokens(draft.text) <= draft.usage.completion_tokens <= max_tokens
        assert draft.finish_reason == "length"
        assert "[" not in MARKER.sub("", draft.text), "a marker is whole or not there"


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("llm", [ExtractiveLLM(), FakeLLM()], ids=["extractive", "fake"])
def test_the_answer_ends_before_a_stop_sequence(llm: LLM, live: bool) -> None:
    draft = written(llm, live=live, stop=("nowhere", "night at"))
    assert (draft.text, draft.finish_reason) == ("Backups run every", "stop")
    assert draft.usage is not None and draft.usage.completion_tokens == estimate_tokens("Backups run every")
    inside = written(llm, live=live, stop=("1]",))
    assert "[" not in inside.text, "no broken marker"
    nothing = written(llm, live=live, stop=("Backups",))
    assert (nothing.text, nothing.finish_reason, nothing.model) == ("", "stop", llm.backend)


def test_a_writer_is_stopped_at_the_limit() -> None:
    left = []

    def script(task: Task) -> Iterable[Step]:
        yield "One two STOP three"
        left.append("more was asked for")
        yield 60.0

    llm = FakeLLM(script)
    assert written(llm, live=True, stop=("STOP",)).text == "One two"
    assert left == [] and llm.closed == 1


@pytest.mark.parametrize(
    ("text", "stop", "left"),
    [
        ("one two three", ("two",), "one "),
        ("one tw", ("two",), "one tw"),
        ("abcabd.", ("abd",), "abc"),
        ("abc", ("abc", "b"), "a"),
        ("aaab", ("aab",), "a"),
        ("one", ("", "e"), "on"),
    ],
)
def test_the_stop_sequence_that_is_complete_first_counts(text: str, stop: tuple[str, ...], left: str) -> None:
    for pieces in ([text], list(text)):
        assert limited(pieces, Options(stop=stop)) == (left, "stop" if left != text else None)


@given(
    st.text("ab [1].日x", max_size=40),
    st.lists(st.text("ab]1", max_size=3), max_size=3),
    st.integers(1, 30),
    st.lists(st.integers(0, 40), max_size=6),
)
@example(text="1[1日1", stop=["11"], max_tokens=4, cuts=[])
def test_how_the_text_was_cut_does_not_matter(text: str, stop: list[str], max_tokens: int, cuts: list[int]) -> None:
    options = Options(max_tokens=max_tokens, stop=tuple(stop))
    places = [0, *sorted(cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places) if start <= end]
    left, reason = limited([text], options)
    assert limited(["".join(pieces)], options)[0] == left
    assert limited(pieces, options) == (left, reason) == limited(list(text), options)
    assert text.startswith(left)
    assert not any(sequence and sequence in left for sequence in stop)
    assert reason is not None or left == text


def test_the_sentence_that_nothing_was_found_keeps_to_limits_too() -> None:
    for options, left, reason in (
        (Options(), ABSTENTION, "stop"),
        (Options(max_tokens=3), "The source", "length"),
        (Options(stop=(" answer",)), "The sources do not", "stop"),
    ):
        draft = Draft()
        abstain(Task("zebras?", (), (), options), draft)
        assert (draft.text, draft.finish_reason) == (left, reason)
        assert draft.usage is not None and draft.usage.completion_tokens == estimate_tokens(left)
        assert is_abstention(left)
    assert not is_abstention("The office opens at nine.") and not is_abstention("")
    assert not is_abstention("The sources agree.")
