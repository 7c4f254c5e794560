"""What is asked, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Question:
    """A query with its labels.

    relevant: {document: grade}, a document named by its source URI or its id; a grade above 0 is relevant. answers:
    texts any of which answers it. span: where the first answer stands, as (source URI, start, end) in code points of
    the document's normalised text.
    """

    id: str
    text: str
    relevant: Mapping[str, int]
    answers: tuple[str, ...] = ()
    span: tuple[str, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A document of a set, as its file has it."""

    id: str
    title: str
    text: str

    @property
    def content(self) -> str:
        """What is searched: title and text, as BEIR joins them, but as two paragraphs."""
        return f"{self.title}\n\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """One set, or what of it is in one language. language: an ISO 639-1 code, empty where the files tell none."""

    name: str
    language: str
    pages: list[Page]
    questions: list[Question]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a search gave for a question: documents, best first, by the names that its labels use; metrics by name."""

    question: Question
    ranked: tuple[str, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    milliseconds: float = 0.0
