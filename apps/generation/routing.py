"""Which model answers: `fast`, `large`, one by its name, or `auto`, by what is asked and found. Pure.

`auto` asks the large model where the small one is known to be weaker, and the fast one otherwise:

- a **long** question: LONG tokens or more,
- **several** questions in one: two or more question marks,
- an answer that is **spread**: of the passages, SPREAD or more documents, none with half of the passages,
- where the sources may **contradict**: two passages of one title from different documents.

The other model stands in for the one that fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from apps.documents.embedding.openai_compatible import estimate_tokens

from .llm import LLM
from .types import Passage

LONG = 60
SPREAD = 5
QUESTION_MARKS = "?？؟"


def order(models: Sequence[LLM], wanted: str, question: str, passages: Sequence[Passage]) -> list[LLM]:
    """The models, who is to answer first. models: as `configured`; by its name the one that stands first is wanted."""
    if len(models) < 2 or wanted not in ("auto", "fast", "large"):
        return list(models)
    large = wanted == "large" or (wanted == "auto" and needs_large(question, passages))
    return list(reversed(models)) if large else list(models)


def needs_large(question: str, passages: Sequence[Passage]) -> bool:
    """Is this a question for the large model?"""
    if estimate_tokens(question) >= LONG or sum(question.count(mark) for mark in QUESTION_MARKS) >= 2:
        return True
    documents = Counter(passage.hit.document_id for passage in passages)
    titles = {(passage.hit.title, passage.hit.document_id) for passage in passages if passage.hit.title}
    if len({title for title, _ in titles}) < len(titles):
        return True
    return len(documents) >= SPREAD and 2 * max(documents.values()) <= len(passages)
