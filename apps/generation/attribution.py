"""Citing after writing: which passages each sentence of an answer goes back to.

A model that need not cite while it writes writes better, and cites nothing that it only guesses at: here a sentence is
given the passages whose words it has (citations.py), or else the one that means the same, by the embedding model. One
that goes back to none is left without a marker, and so is judged unsupported.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from apps.documents.embedding import EmbeddingError

from .citations import numbers, quotable, split, support, supported
from .types import Embed, Passage
from .units import CODE, ROW
from .words import coverage, words

logger = logging.getLogger(__name__)

#: Cosine from which a sentence and one of a passage are taken to say the same, where they also share this many words.
ALIKE, SHARED = 0.7, 0.25
#: Of two passages that hold a sentence, the worse is cited as well where it is as good but for this.
AS_GOOD = 0.05
#: Sentences of the passages that are embedded, in their order; 100 take about 0.3 s on two cores.
EMBEDDED = 100
_STOPS = ".!?…。！？"


class Attributor:
    """Turns what a model writes into the same with markers, sentence by sentence. The text has none of its own."""

    def __init__(self, passages: Sequence[Passage], embed: Embed | None) -> None:
        self._passages, self._embed = passages, embed
        self._by_marker = {passage.marker: passage.hit for passage in passages}
        self._text = ""
        self._at = 0

    def add(self, piece: str) -> bool:
        """More text; may a sentence have ended, so that `take` is worth its time?"""
        self._text += piece
        return "\n" in piece or any(stop in piece for stop in _STOPS)

    def take(self, *, final: bool = False) -> str:
        """The sentences that are whole by now, cited; with `final` all that is left."""
        out: list[str] = []
        claims = split(self._text)
        for claim in claims if final else claims[:-1]:
            if claim.end <= self._at:
                continue
            cited = "" if claim.kind == CODE else "".join(f"[{n}]" for n in self.sources(claim.text))
            out.append(self._marked(claim.end, claim.kind, cited))
            self._at = claim.end
        if final:
            out.append(self._text[self._at :])
            self._at = len(self._text)
        return "".join(out)

    def _marked(self, end: int, kind: str, cited: str) -> str:
        said = self._text[self._at : end]
        if not cited:
            return said
        if kind == ROW and said.endswith("|"):
            return f"{said[:-1].rstrip()} {cited} |"
        if said[-1] in _STOPS:
            space = "" if said[-1] in "。！？" else " "
            return f"{said[:-1]}{space}{cited}{said[-1]}"
        return f"{said} {cited}"

    def sources(self, sentence: str) -> list[int]:
        """The numbers of the passages that a sentence goes back to: one or two, or none."""
        wanted = set(words(sentence))
        if not wanted:
            return []
        scores = {marker: support(sentence, hit).score for marker, hit in self._by_marker.items()}
        ranked = sorted(scores, key=lambda marker: -scores[marker])
        holding = [marker for marker in ranked if supported(sentence, [marker], self._by_marker)]
        if holding:
            return [marker for marker in holding if scores[marker] >= scores[holding[0]] - AS_GOOD][:2]
        return self._of_two(wanted, sentence, ranked) or self._alike(wanted, sentence)

    def _of_two(self, wanted: set[str], sentence: str, ranked: Sequence[int]) -> list[int]:
        """Two passages that hold a sentence together, which each adds something to."""
        both = ranked[:2]
        if len(both) < 2:
            return []
        said = [self._by_marker[marker] for marker in both]
        spans = [support(sentence, hit) for hit in said]
        have = [set(words(hit.text[span.start : span.end])) for hit, span in zip(said, spans, strict=True)]
        adds = min(coverage(wanted, have[0] | have[1]) - coverage(wanted, one) for one in have)
        whole = coverage(wanted, have[0] | have[1]) == 1.0
        return sorted(both) if whole and adds > 0 and self._knows(sentence, both) else []

    def _alike(self, wanted: set[str], sentence: str) -> list[int]:
        if self._embed is None or self._known is None:
            return []
        try:
            vector = self._embed([sentence])[0]
        except EmbeddingError as error:
            logger.warning("attributing by words alone: %s", error)
            return []
        markers, texts, vectors = self._known
        for index in np.argsort(-(vectors @ vector)):
            if vectors[index] @ vector < ALIKE:
                break
            shares = coverage(wanted, set(words(texts[index]))) >= SHARED
            if shares and self._knows(sentence, [markers[index]]):
                return [markers[index]]
        return []

    def _knows(self, sentence: str, cited: Sequence[int]) -> bool:
        """Is every figure of a sentence one of these passages'?"""
        return numbers(sentence) <= {number for marker in cited for number in numbers(self._by_marker[marker].text)}

    @cached_property
    def _known(self) -> tuple[list[int], list[str], npt.NDArray[np.float32]] | None:
        """(marker, text, vector) of each sentence of the passages; None where there are none, or they cannot be had."""
        found = [
            (passage.marker, passage.hit.text[unit.start : unit.end])
            for passage in self._passages
            for unit in quotable(passage.hit)
        ][:EMBEDDED]
        if not found or self._embed is None:
            return None
        texts = [text for _, text in found]
        try:
            return [marker for marker, _ in found], texts, self._embed(texts)
        except EmbeddingError as error:
            logger.warning("attributing by words alone: %s", error)
            return None


def attributed(text: str, passages: Sequence[Passage], embed: Embed | None) -> str:
    """A whole text with its markers."""
    attributor = Attributor(passages, embed)
    attributor.add(text)
    return attributor.take(final=True)
