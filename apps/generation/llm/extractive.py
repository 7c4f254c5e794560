"""Answers without a language model: the best supporting sentences of the passages, quoted and cited.

Measured on 240 questions of SQuADShifts new_wiki with all-MiniLM-L6-v2, hits = the gold passage and four
others: the answer contains a gold answer in 90 % where the others are those that share most words with the
question (1.7 sentences, 323 characters), in 92 % where they are random. One sentence alone: 82 %; chosen by
similarity alone 78 %, by words alone 74 %.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import numpy as np

from apps.documents.embedding import EmbeddingError
from apps.documents.embedding.openai_compatible import estimate_tokens

from ..citations import is_block, quotable
from ..markers import neutralise
from ..prompts import ABSTENTION
from ..types import Delta, Embed, Passage, Task, Usage
from ..units import CODE, ROW
from ..words import coverage, idf, overlap, words

logger = logging.getLogger(__name__)

#: Weights of a candidate's score, chosen on one half of the sample and checked on the other.
SIMILARITY, WORDS, CONTEXT, PASSAGE, NUMBER, LENGTH = 1.0, 0.4, 0.2, 0.3, 0.1, 0.1
#: Candidates that are embedded: the best by words. 40 sentences take about 0.1 s on two cores.
EMBEDDED = 40
#: More sentences follow the best one while they score at least this share of it.
RATIO, MOST = 0.8, 3
#: Two sentences that share this much of their words (Jaccard) say the same.
SAME = 0.7
#: Below this best score the passages are taken not to answer. In that sample 1 to 2 % fall below it although
#: the answer is there, and 23 % of the questions whose passages are on the topic but lack the answer. Of 50
#: questions each with passages on other topics: new_wiki 96 %, Reddit 90 % (32 % wrongly), JaQuAD 84 % (2 %),
#: DRCD 68 % (4 %).
THRESHOLD = 0.75
#: What a sentence that ends in a colon introduces is quoted along, up to this many lines.
INTRODUCED = 5
LONG = 200  # characters at which a sentence is no longer too short to say something

_ASKS_NUMBER = re.compile(
    r"\b(when|how (many|much|long|old|often|large|big|far|fast)|what (year|date|time|port|number))\b", re.I
)
_BULLET = re.compile(r"^\s*(?:[-*+•‣]|\d{1,3}[.)])\s+")
_FOOTNOTE = re.compile(r"(?<=[.,;:!?\"'”’)])\[\d{1,3}\]")


@dataclass(slots=True)
class Candidate:
    """A quotable piece of a passage: hit.text[start:end]."""

    passage: Passage
    start: int
    end: int
    kind: str
    words: frozenset[str]
    context: frozenset[str]
    score: float = 0.0

    @property
    def text(self) -> str:
        return self.passage.hit.text[self.start : self.end]


class ExtractiveLLM:
    """Implements `LLM` by quoting. Only max_tokens means something to it."""

    backend = "extractive"

    async def model(self) -> str:
        return "extractive"

    async def stream(self, task: Task) -> AsyncGenerator[Delta, None]:
        """One delta per sentence, after all are chosen."""
        chosen = await asyncio.to_thread(choose, task.question, task.passages, task.embed)
        pieces = compose(chosen, max_tokens=task.options.max_tokens) or [ABSTENTION]
        for piece in pieces:
            yield Delta(piece)
        read = estimate_tokens(task.question) + sum(estimate_tokens(passage.hit.text) for passage in task.passages)
        yield Delta(usage=Usage(read, estimate_tokens("".join(pieces))), finish_reason="stop")


def choose(question: str, passages: Sequence[Passage], embed: Embed | None) -> list[Candidate]:
    """The 1 to 3 candidates that answer best, in the order of their passages and places; none below
    THRESHOLD.

    Without `embed`, or when it fails, words alone decide.
    """
    candidates = [candidate for passage in passages for candidate in _candidates(passage)]
    if not candidates:
        return []
    _score(question, candidates, embed)
    ranked = sorted(candidates, key=lambda candidate: -candidate.score)
    if ranked[0].score < THRESHOLD:
        return []
    chosen: list[Candidate] = []
    for candidate in ranked:
        if len(chosen) == MOST or candidate.score < RATIO * ranked[0].score:
            break
        if all(not _same(candidate, other) for other in chosen):
            chosen.append(candidate)
    order = {passage.marker: position for position, passage in enumerate(passages)}
    return sorted(chosen, key=lambda candidate: (order[candidate.passage.marker], candidate.start))


def compose(chosen: Sequence[Candidate], *, max_tokens: int) -> list[str]:
    """The answer in pieces: each quote, its white space collapsed, with its marker. The first quote always
    fits.
    """
    pieces: list[str] = []
    left = max_tokens
    for candidate in chosen:
        block = candidate.kind in (CODE, ROW) or ("\n" in candidate.text and _has_block(candidate))
        text = _shown(candidate.text, lines=block)
        left -= estimate_tokens(text) + 3
        if pieces and left < 0:
            break
        gap = "" if not pieces else "\n\n" if block else " "
        pieces.append(f"{gap}{text} [{candidate.passage.marker}]")
    return pieces


def _candidates(passage: Passage) -> list[Candidate]:
    hit = passage.hit
    found = quotable(hit)
    about = frozenset(words(f"{hit.title} {' '.join(hit.heading_path)}"))
    candidates: list[Candidate] = []
    before: frozenset[str] = frozenset()
    for index, unit in enumerate(found):
        end = unit.end
        if hit.text[unit.end - 1] in ":：" and not is_block(unit):
            for follower in found[index + 1 : index + 1 + INTRODUCED]:
                if not is_block(follower):
                    break
                end = follower.end
        here = frozenset(words(hit.text[unit.start : end]))
        candidates.append(Candidate(passage, unit.start, end, unit.kind, here, here | about | before))
        before = here
    return candidates


def _score(question: str, candidates: Sequence[Candidate], embed: Embed | None) -> None:
    """Set each candidate's score; about 0 to 2.1, of which similarity to the question makes up to one."""
    asked = set(words(question))
    weights = idf(candidate.words for candidate in candidates)
    by_passage: dict[int, set[str]] = {}
    for candidate in candidates:
        by_passage.setdefault(candidate.passage.marker, set()).update(candidate.words)
    passage_score = {marker: coverage(asked, have, weights) for marker, have in by_passage.items()}
    asks_number = _ASKS_NUMBER.search(question) is not None
    direct = [coverage(asked, candidate.words, weights) for candidate in candidates]
    for candidate, share in zip(candidates, direct, strict=True):
        text = candidate.text
        candidate.score = (
            WORDS * share
            + CONTEXT * coverage(asked, candidate.context, weights)
            + PASSAGE * passage_score[candidate.passage.marker]
            + NUMBER * (asks_number and any(character.isdigit() for character in text))
            + LENGTH * min(1.0, len(text) / LONG)
        )
    similar = _similarities(question, candidates, embed)
    for index, candidate in enumerate(candidates):
        candidate.score += SIMILARITY * (direct[index] if similar is None else similar.get(index, 0.0))


def _similarities(question: str, candidates: Sequence[Candidate], embed: Embed | None) -> dict[int, float] | None:
    """Cosine of the question with the EMBEDDED best candidates by words, by index; None when nothing can
    embed.
    """
    if embed is None:
        return None
    # Stable: of equals the better hit's sentences are embedded.
    best = sorted(range(len(candidates)), key=lambda index: -candidates[index].score)[:EMBEDDED]
    try:
        vectors = embed([question, *(candidates[index].text for index in best)])
    except EmbeddingError as error:
        logger.warning("answering by words alone: %s", error)
        return None
    return dict(zip(best, np.asarray(vectors[1:] @ vectors[0]).tolist(), strict=True))


def _same(left: Candidate, right: Candidate) -> bool:
    """Whether two candidates say the same, or the one is a part of the other."""
    a, b = left.passage.hit, right.passage.hit
    if (
        a.document_id == b.document_id
        and a.start + left.start < b.start + right.end
        and b.start + right.start < a.start + left.end
    ):
        return True
    return overlap(left.words, right.words) > SAME


def _has_block(candidate: Candidate) -> bool:
    hit = candidate.passage.hit
    return any(is_block(unit) for unit in quotable(hit) if candidate.start <= unit.start < candidate.end)


def _shown(text: str, *, lines: bool) -> str:
    """A quote as the answer shows it: one line of prose, or its lines, without markers of its own."""
    kept = _FOOTNOTE.sub("", text)
    if lines:
        return neutralise("\n".join(line.rstrip() for line in kept.splitlines() if line.strip()))
    return neutralise(" ".join(_BULLET.sub("", kept).split()))
