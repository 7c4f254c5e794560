"""Answers without a language model: the best supporting sentences of the passages, quoted and cited.

How often they hold the answer, and how often they rightly say that there is none: benchmarks/answers.py.
"""

from __future__ import annotations

import asyncio
import logging
import re
from bisect import bisect_right
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from apps.documents.embedding import EmbeddingError
from apps.documents.embedding.openai_compatible import estimate_tokens

from ..citations import is_block, quotable
from ..markers import neutralise
from ..prompts import ABSTENTION
from ..types import Delta, Embed, Passage, Task
from ..units import CODE, HEADING, PROSE, ROW, RULE, Unit, units
from ..words import coverage, idf, overlap, roots

logger = logging.getLogger(__name__)

#: Weights of a candidate's score, and what a difference of one in it says: the probability that a sentence answers goes
#: with exp(SHARPNESS * score). Fitted on one half of the questions of nine sets (benchmarks/RESULTS.md).
SIMILARITY, WORDS, CONTEXT, RANK, NUMBER, LENGTH = 1.0, 0.5, 0.8, 0.4, 0.25, 0.2
SHARPNESS = 6.2
#: So many candidates are embedded, the best by the rest: three or eight times as many find hardly more answers, and
#: it is what takes the time. Of the others, and where no model can be had, a similarity is taken to be so much, and so
#: much of the share of words.
EMBEDDED, UNSEEN = 5, 0.45
#: As many sentences are quoted as hold the answer with this probability, but not more than so many.
ENOUGH, MOST = 0.95, 6
#: Code is quoted where no sentence scores at least this share of it.
RATIO = 0.8
#: Two sentences that share this much of their words (Jaccard) say the same.
SAME = 0.7
#: Below this best score the passages are taken not to answer: of the questions that they answer 2 %, of those that they
#: do not 33 % where they are on the topic, 83 % where they are not. At 1.4: 6, 51 and 90 %.
THRESHOLD = 1.3
#: What a sentence that ends in a colon introduces is quoted along, up to this many lines.
INTRODUCED = 5
LONG = 200  # characters at which a sentence is no longer too short to say something

_ASKS_NUMBER = re.compile(
    r"\b(when|how (many|much|long|old|often|large|big|far|fast)|what (year|date|time|port|number))\b", re.I
)
#: What a question begins with that is one even without a question mark.
_OPENS = "what|when|where|who|whom|whose|which|why|how|is|are|was|were|do|does|did|can|could|may|must|should|will|would"
_ASKING = re.compile(_OPENS, re.I)
_ASKS = re.compile(rf"[\W_]*(?:{_OPENS})\b.*\?[\s\"'”’»*_`]*", re.I | re.S)
_TOKEN = re.compile(r"[^\W_]+")
#: After a question: its mark. Before one in a list of questions and answers: its label; after it: the answer's start.
_MARK = re.compile(r"[\s\"'”’»*_`)\]}]*[?？؟]")
_LABEL = re.compile(r"[\W_]*+(?:q|question|faq)?[\W_]*+(?:\d+[\W_]*+)?", re.I)
_ANSWER = re.compile(r"[\s\"'”’»*_`)]*[?？؟:：|–—]")
#: Columns, a member of a JSON object, a command: code whose fence is in another chunk.
_PREFORMATTED = re.compile(r"\S {4,}\S|^\s*\"[^\"\n]+\":|\A(?:\$ |curl )", re.M)
_FENCE = re.compile(r"[`~]{3,}")
_WITHIN_WORD = re.compile(r"[^\W_]{2}", re.ASCII)
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
    """Implements `LLM` by quoting. Of the options only max_tokens means something to it."""

    backend = "extractive"
    name = "extractive"
    keeps_limits = False  # but rather leaves a quote out than have it cut

    async def model(self) -> str:
        return self.name

    async def stream(self, task: Task) -> AsyncGenerator[Delta, None]:
        """One delta per sentence, after all are chosen."""
        chosen = await asyncio.to_thread(choose, task.question, task.passages, task.embed)
        pieces, whole = compose(chosen, max_tokens=task.options.max_tokens)
        for piece in pieces or [ABSTENTION]:
            yield Delta(piece)
        yield Delta(finish_reason="stop" if whole else "length")


def choose(question: str, passages: Sequence[Passage], embed: Embed | None) -> list[Candidate]:
    """The candidates that answer best, as many as ENOUGH asks for, in the order of their passages and places; none
    where the best is below THRESHOLD.

    What repeats the question, or asks another, does not answer it. Code is chosen where nothing else comes
    within RATIO of it. Without `embed`, or when it fails, words alone decide.
    """
    candidates = sorted(scored(question, passages, embed), key=lambda candidate: -candidate.score)
    if not candidates or (best := candidates[0].score) < THRESHOLD:
        return []
    if any(one.kind != CODE and one.score >= RATIO * best for one in candidates):
        candidates = [one for one in candidates if one.kind != CODE]
    likely = np.exp([SHARPNESS * (one.score - best) for one in candidates])
    missing = 1 - np.cumsum(likely / likely.sum())  # the probability that none so far answers
    chosen: list[Candidate] = []
    for candidate, before in zip(candidates, [1.0, *missing], strict=False):
        if len(chosen) == MOST or before <= 1 - ENOUGH:
            break
        if all(not _same(candidate, other) for other in chosen):
            chosen.append(candidate)
    order = {passage.marker: position for position, passage in enumerate(passages)}
    return sorted(chosen, key=lambda candidate: (order[candidate.passage.marker], candidate.start))


def scored(question: str, passages: Sequence[Passage], embed: Embed | None) -> list[Candidate]:
    """All candidates, each with how well it answers: about 0 to 3."""
    echo = Echo(question)
    candidates = [candidate for passage in passages for candidate in _candidates(passage, echo)]
    if candidates:
        order = {passage.marker: position for position, passage in enumerate(passages)}
        _score(question, candidates, order, embed)
    return candidates


def compose(chosen: Sequence[Candidate], *, max_tokens: int) -> tuple[list[str], bool]:
    """(the answer in pieces, whether all that was chosen is in it): each quote, its white space collapsed,
    with its marker after each sentence.

    What does not fit into max_tokens is left out; of the first quote as many words are kept as fit with
    their marker.
    """
    pieces: list[str] = []
    block = False
    for candidate in chosen:
        after = block
        block = candidate.kind in (CODE, ROW) or ("\n" in candidate.text and _has_block(candidate))
        text, marker = _shown(candidate, lines=block), candidate.passage.marker
        gap = "" if not pieces else "\n\n" if block or after else " "
        piece = gap + _cited(text, marker)
        if estimate_tokens("".join(pieces) + piece) > max_tokens:
            return pieces or [_shortened(text, marker, max_tokens)], False
        pieces.append(piece)
    return pieces, True


class Echo:
    """Finds where a text repeats a question, whatever its case, white space and punctuation."""

    def __init__(self, question: str) -> None:
        found = _TOKEN.findall(question)
        # A few words may stand in any sentence, also in the one that answers; they repeat the question only where a
        # question mark follows. A whole question stands there for its own sake.
        self._whole = len(found) >= 3 and _ASKING.fullmatch(found[0]) is not None
        self.words = frozenset(roots(question))
        # A script without spaces has no ends of words to look for.
        opens = r"(?<![^\W_])" if found and found[0].isascii() else ""
        closes = r"(?![^\W_])" if found and found[-1].isascii() else ""
        pattern = opens + r"[\W_]+".join(map(re.escape, found)) + closes
        self._pattern = re.compile(pattern, re.IGNORECASE) if found else None

    def within(self, text: str) -> re.Match[str] | None:
        """Where the text repeats the question."""
        for found in self._pattern.finditer(text) if self._pattern else ():
            if self._whole or _MARK.match(text, found.end()):
                return found
        return None


def _candidates(passage: Passage, echo: Echo) -> list[Candidate]:
    hit = passage.hit
    found = quotable(hit)
    about = frozenset(roots(f"{hit.title} {' '.join(hit.heading_path)}"))
    candidates: list[Candidate] = []
    before: frozenset[str] = frozenset()
    asked = False  # does what stands before ask the question, and nothing else?
    for index, unit in enumerate(found):
        text = hit.text[unit.start : unit.end]
        code = unit.kind == CODE or (unit.kind == PROSE and _PREFORMATTED.search(text) is not None)
        repeated = echo.within(text)
        if repeated and (code or not _answered(text, repeated)):
            asked = not code and _TOKEN.search(text, repeated.end()) is None
            before = echo.words
            continue
        end = unit.end if code else _introduced(hit.text, found, index, echo)
        here = frozenset(roots(hit.text[unit.start : end]))
        if code or not _ASKS.fullmatch(text):
            if asked and not code:
                here |= echo.words
            kind = CODE if code else unit.kind
            candidates.append(Candidate(passage, unit.start, end, kind, here, here | about | before))
        before, asked = here, False
    return candidates


def _introduced(text: str, found: Sequence[Unit], index: int, echo: Echo) -> int:
    """Where a unit ends with the lines that it introduces, if it does and they do not repeat the question."""
    unit = found[index]
    end = unit.end
    if text[end - 1] not in ":：" or is_block(unit):
        return end
    for follower in found[index + 1 : index + 1 + INTRODUCED]:
        if not is_block(follower):
            break
        if echo.within(text[follower.start : follower.end]):
            return unit.end
        end = follower.end
    return end


def _answered(text: str, asked: re.Match[str]) -> bool:
    """Whether a text that repeats the question goes on with the answer: "Is parking free? On Sundays." """
    return (
        _LABEL.fullmatch(text, 0, asked.start()) is not None
        and _ANSWER.match(text, asked.end()) is not None
        and _TOKEN.search(text, asked.end()) is not None
    )


def _score(question: str, candidates: Sequence[Candidate], order: Mapping[int, int], embed: Embed | None) -> None:
    """Set each candidate's score, of which similarity to the question makes up to one. order: of the passages, best
    first."""
    asked = set(roots(question))
    weights = idf(candidate.words for candidate in candidates)
    asks_number = _ASKS_NUMBER.search(question) is not None
    direct = [coverage(asked, candidate.words, weights) for candidate in candidates]
    for candidate, share in zip(candidates, direct, strict=True):
        text = candidate.text
        candidate.score = (
            WORDS * share
            + CONTEXT * coverage(asked, candidate.context, weights)
            + RANK / (1 + order[candidate.passage.marker])
            + NUMBER * (asks_number and any(character.isdigit() for character in text))
            + LENGTH * min(1.0, len(text) / LONG)
        )
    similar = _similarities(question, candidates, embed)
    for index, candidate in enumerate(candidates):
        candidate.score += SIMILARITY * similar.get(index, UNSEEN * (1 + direct[index]))


def _similarities(question: str, candidates: Sequence[Candidate], embed: Embed | None) -> dict[int, float]:
    """Cosine of the question with the EMBEDDED best candidates so far, by index; of none when nothing can embed."""
    if embed is None:
        return {}
    # Stable: of equals the better hit's sentences are embedded.
    best = sorted(range(len(candidates)), key=lambda index: -candidates[index].score)[:EMBEDDED]
    try:
        vectors = embed([question, *(candidates[index].text for index in best)])
    except EmbeddingError as error:
        logger.warning("answering by words alone: %s", error)
        return {}
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


def _shown(candidate: Candidate, *, lines: bool) -> str:
    """A quote as the answer shows it: one line of prose, or its lines, without markers of its own."""
    kept = _FOOTNOTE.sub("", candidate.text)
    if not lines:
        return neutralise(" ".join(_BULLET.sub("", kept).split()))
    text = neutralise("\n".join(line.rstrip() for line in kept.splitlines() if line.strip()))
    if candidate.kind != CODE:
        return text
    return f"{'`' * max(3, 1 + max(map(len, re.findall('`+', text)), default=0))}\n{text}"


def _cited(text: str, marker: int) -> str:
    """A quote with its marker after each sentence and item, and after the whole of a table or of code."""
    fences = [run.group() for unit in units(text) if unit.kind == RULE and (run := _FENCE.match(text, unit.start))]
    if len(fences) % 2:
        text += f"\n{fences[-1]}"
    out, at = "", 0
    found = units(text)
    for index, unit in enumerate(found):
        end, after = unit.end, [other.kind for other in found[index + 1 : index + 3]]
        if unit.kind in (HEADING, RULE) or (unit.kind == ROW and (after[:1] == [ROW] or after == [RULE, ROW])):
            continue
        if unit.kind == CODE:
            if after[:1] == [CODE]:
                continue
            end = found[index + 1].end if after else end  # its closing fence
        out += text[at:end]
        # A marker may stand neither in a line of a fence nor in code that a cut left open.
        apart = unit.kind == CODE or len(re.findall("`+", text[at:end])) % 2
        out += f"{chr(10) if apart else ' '}[{marker}]"
        at = end
    return out + text[at:] if at else f"{text} [{marker}]"


def _shortened(text: str, marker: int, max_tokens: int) -> str:
    """As many words of a quote as fit with their marker; where none does, the quote without it."""
    ends = [end for end in range(1, len(text)) if not _WITHIN_WORD.match(text, end - 1) and not text[end - 1].isspace()]
    fits = bisect_right(ends, max_tokens, key=lambda end: estimate_tokens(_cited(text[:end], marker)))
    return _cited(text[: ends[fits - 1]], marker) if fits else text
