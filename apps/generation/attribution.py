"""Citing after writing: which passages each sentence of an answer goes back to.

A model that need not cite while it writes writes better, and cites nothing that it only guesses at: here a sentence is
given the passages whose words it has (citations.py), or else the one that means the same, by the embedding model, or
else those in which a language model finds it. One that goes back to none is left without a marker, and so is judged
unsupported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from apps.documents.embedding import EmbeddingError

from . import prompts, structured
from .citations import Sentence, Span, leads, letters, numbers, quotable, split, standing, support, supported
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
#: Passages that one sentence cites.
MOST = 2
#: Sources that a model names and that are looked at.
LISTED = 200
#: How a model is to say where sentences are from.
FORMAT: structured.Format = {
    "type": "json_schema",
    "json_schema": {
        "name": "sources",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "sources": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "sentence": {"type": "integer"},
                            "passage": {"type": "integer"},
                            "quote": {"type": "string"},
                        },
                        "required": ["sentence", "passage", "quote"],
                        "additionalProperties": False,
                    },
                }
            },
            "required": ["sources"],
            "additionalProperties": False,
        },
    },
}
_STOPS = ".!?…。！？"


class Attributor:
    """Turns what a model writes into the same with markers, sentence by sentence. The text has none of its own.

    waits: what comes from the first sentence on that goes back to nothing is kept until the end, when more may be known
    of it.
    """

    def __init__(self, sources: Sources, *, waits: bool = False) -> None:
        self._sources, self._waits = sources, waits
        self.text = ""
        self._at = 0

    def add(self, piece: str) -> bool:
        """More text; may a sentence have ended, so that `take` is worth its time?"""
        self.text += piece
        return "\n" in piece or any(stop in piece for stop in _STOPS)

    def take(self, *, final: bool = False) -> str:
        """The sentences that are whole by now, cited; with `final` all that is left."""
        out: list[str] = []
        claims = split(self.text)
        for claim in claims if final else claims[:-1]:
            if claim.end <= self._at:
                continue
            found = [] if claim.kind == CODE else self._sources.of(claim.text)
            if self._waits and not (final or found) and says(claim):
                break
            out.append(self._marked(claim.end, claim.kind, "".join(f"[{n}]" for n in found)))
            self._at = claim.end
        if final:
            out.append(self.text[self._at :])
            self._at = len(self.text)
        return "".join(out)

    def _marked(self, end: int, kind: str, cited: str) -> str:
        said = self.text[self._at : end]
        if not cited:
            return said
        if kind == ROW and said.endswith("|"):
            return f"{said[:-1].rstrip()} {cited} |"
        before = said.rstrip(_STOPS)
        stops = said[len(before) :]
        return f"{before}{'' if stops[:1] in tuple('。！？') else ' '}{cited}{stops}"


class Sources:
    """Which passages sentences go back to. Each is looked up once.

    quotes: by the letters of a sentence (citations.py), the words of a passage that say it where others share more
    words with it.
    """

    def __init__(self, passages: Sequence[Passage], embed: Embed | None) -> None:
        self._passages, self._embed = passages, embed
        self._by_marker = {passage.marker: passage.hit for passage in passages}
        self._found: dict[str, list[int]] = {}
        self.quotes: dict[str, Mapping[int, Span]] = {}

    def of(self, sentence: str) -> list[int]:
        """The numbers of the passages that a sentence goes back to: one or two, or none."""
        if sentence not in self._found:
            self._found[sentence] = self._looked_up(sentence)
        return self._found[sentence]

    def unknown(self, *texts: str) -> list[str]:
        """The sentences of texts that say something and go back to nothing."""
        claims = [claim for text in texts for claim in split(text)]
        return list(dict.fromkeys(claim.text for claim in claims if says(claim) and not self.of(claim.text)))

    def learn(self, sentences: Sequence[str], said: str) -> None:
        """What a model says of sentences (FORMAT; they are numbered from 1), as far as it can be seen: the words that
        it gives stand in the passage, and so does every figure of the sentence. Raises Malformed."""
        told: dict[str, dict[int, Span]] = {}
        for one in structured.read(said, FORMAT)["sources"][:LISTED]:
            number, marker = one["sentence"], one["passage"]
            if not (1 <= number <= len(sentences) and marker in self._by_marker):
                continue
            spans = told.setdefault(sentences[int(number) - 1], {})
            if marker not in spans and len(spans) < MOST:
                span = standing(one["quote"], self._by_marker[marker])
                spans |= {int(marker): span} if span else {}
        for sentence, spans in told.items():
            if spans and self._knows(sentence, list(spans)):
                self._found[sentence] = sorted(spans)
                self.quotes[letters(sentence)] = spans

    def cited(self, text: str) -> str:
        """A whole text with its markers."""
        attributor = Attributor(self)
        attributor.add(text)
        return attributor.take(final=True)

    def _looked_up(self, sentence: str) -> list[int]:
        wanted = set(words(sentence))
        if not wanted:
            return []
        scores = {marker: support(sentence, hit).score for marker, hit in self._by_marker.items()}
        ranked = sorted(scores, key=lambda marker: -scores[marker])
        holding = [marker for marker in ranked if supported(sentence, [marker], self._by_marker)]
        if holding:
            return [marker for marker in holding if scores[marker] >= scores[holding[0]] - AS_GOOD][:MOST]
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
        markers, spans, texts, vectors = self._known
        for index in np.argsort(-(vectors @ vector)):
            if vectors[index] @ vector < ALIKE:
                break
            shares = coverage(wanted, set(words(texts[index]))) >= SHARED
            if shares and self._knows(sentence, [markers[index]]):
                self.quotes[letters(sentence)] = {markers[index]: spans[index]}
                return [markers[index]]
        return []

    def _knows(self, sentence: str, cited: Sequence[int]) -> bool:
        """Is every figure of a sentence one of these passages'?"""
        return numbers(sentence) <= {number for marker in cited for number in numbers(self._by_marker[marker].text)}

    @cached_property
    def _known(self) -> tuple[list[int], list[Span], list[str], npt.NDArray[np.float32]] | None:
        """(marker, place, text, vector) of each sentence of the passages; None where there are none, or they cannot be
        had."""
        found = [
            (passage.marker, Span(unit.start, unit.end, 0.0), passage.hit.text[unit.start : unit.end])
            for passage in self._passages
            for unit in quotable(passage.hit)
        ][:EMBEDDED]
        if not found or self._embed is None:
            return None
        markers, spans, texts = map(list, zip(*found, strict=True))
        try:
            return markers, spans, texts, self._embed(texts)
        except EmbeddingError as error:
            logger.warning("attributing by words alone: %s", error)
            return None


def says(claim: Sentence) -> bool:
    """Is it worth asking where a claim is from? Not of code, of a word that says nothing alone ("Yes."), of what leads
    to a list, and of the sentence that says that there is no answer."""
    if claim.kind == CODE or len(set(words(claim.text))) < 2:
        return False
    return not leads(claim.text) and not prompts.is_abstention(claim.text)
