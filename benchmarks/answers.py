"""How good answers without a language model are: SQuAD-like sets, quotes as the product gives them.

Of each set the whole corpus is in a collection, and BENCH_QUESTIONS of its questions (150) are asked twice by
`answers.prepare` and the extractive writer, with k = 8: as they are, and with the documents that answer them filtered
out, so that the sources are on the topic and do not answer (but other documents may, as nobody judged those: some of
these abstentions are wrongly asked for). Once more they are asked of another set's collection.

- answer in citation: the share of answers one of whose quotes holds a gold answer, beside the share of searches one
  of whose passages' documents is the gold one (recall@8).
- abstention: precision, recall and F1 of "the sources do not answer" over all three, and the threshold that would be
  best for it, found on the first half of the questions and judged on the second.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np

from apps.evaluation import corpus, sets
from apps.evaluation.types import LabelledSet, Question
from apps.generation import answers
from apps.generation.llm import extractive
from apps.generation.types import AnswerRequest

from .stack import house

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "qa"
SETS = {
    "squadshifts_new_wiki": "",
    "squadshifts_reddit": "",
    "squadshifts_amazon_reviews": "",
    "xquad": "en de es zh",
    "drcd_dev": "",
    "jaquad_train": "",
}
QUESTIONS = int(os.environ.get("BENCH_QUESTIONS", "150"))
K = 8
MOST_PAGES = 3_000  # of a larger corpus: those of the questions, and others


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a question: its best candidate's score, was a gold document found, does a quote hold the answer."""

    score: float
    found: bool
    held: bool


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    collection, _ = house("answers")
    tenant_id = collection.tenant_id
    loaded: list[tuple[LabelledSet, str]] = []
    for name, languages in SETS.items():
        for each in sets.read(SHARED / name):
            if not languages or each.language in languages.split():
                labelled = _part(each)
                slug = corpus.slug_for(labelled)
                corpus.load(labelled, tenant_id=tenant_id, slug=slug, space=None, told=lambda _: None)
                loaded.append((labelled, slug))
    threshold = extractive.THRESHOLD
    answered, near, far = [], [], []
    for index, (labelled, slug) in enumerate(loaded):
        other = loaded[(index + 1) % len(loaded)][1]
        here = [_ask(tenant_id, slug, question) for question in labelled.questions]
        without = [_ask(tenant_id, slug, question, but=True) for question in labelled.questions]
        elsewhere = [_ask(tenant_id, other, question) for question in labelled.questions]
        recall = statistics.mean(one.found for one in here)
        held = statistics.mean(one.held and one.score >= threshold for one in here)
        said = f"{labelled.name} {labelled.language}".strip()
        yield (
            f"{said}: answer in citation beside recall@{K}",
            ">= 0.9",
            f"{held:.3f}, {recall:.3f}: {held / recall:.3f}",
        )
        yield f"{said}: abstention at {threshold}", "stated", _told(here, without, elsewhere, threshold)
        answered += here
        near += without
        far += elsewhere
    yield "all: abstention", "stated", _told(answered, near, far, threshold)
    tuned = _best(answered[::2], near[::2], far[::2])
    yield (
        f"all: abstention at {tuned:.2f}, the best for one half, on the other",
        "stated",
        _told(answered[1::2], near[1::2], far[1::2], tuned),
    )


def _part(labelled: LabelledSet) -> LabelledSet:
    questions = [one for one in sets.sample(labelled.questions, size=QUESTIONS, seed=11) if one.answers]
    needed = {name for one in questions for name in one.relevant}
    rest = [page for page in labelled.pages if page.id not in needed]
    pages = [page for page in labelled.pages if page.id in needed] + rest[: max(0, MOST_PAGES - len(needed))]
    return LabelledSet(labelled.name, labelled.language, pages, questions)


def _ask(tenant_id: UUID, slug: str, question: Question, *, but: bool = False) -> Asked:
    gold = [name for name, grade in question.relevant.items() if grade > 0]
    filters = {"source_uri": {"$nin": gold}} if but else None
    request = AnswerRequest(question.text, (slug,), k=K, model="extractive", filters=filters)
    task = answers.prepare(tenant_id=tenant_id, request=request).task
    score = max((one.score for one in extractive.scored(task.question, task.passages, task.embed)), default=0.0)
    quoted = [one.text for one in extractive.choose(task.question, task.passages, task.embed)]
    found = any(passage.hit.source_uri in gold for passage in task.passages)
    return Asked(score, found, any(_plain(answer) in _plain(quote) for answer in question.answers for quote in quoted))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _told(answered: Sequence[Asked], near: Sequence[Asked], far: Sequence[Asked], threshold: float) -> str:
    # What the search did not find cannot be answered either: to abstain is right.
    right = [one for one in answered if one.found]
    missed = [one for one in answered if not one.found]
    said, wrongly = _below([*near, *far, *missed], threshold), _below(right, threshold)
    asked_for = len(near) + len(far) + len(missed)
    precision = said / max(1, said + wrongly)
    recall = said / asked_for
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    shares = [_below(one, threshold) / max(1, len(one)) for one in (near, far, right)]
    return (
        f"F1 {f1:.3f} (precision {precision:.3f}, recall {recall:.3f}); says so of {shares[0]:.2f} on the topic,"
        f" {shares[1]:.2f} of another, {shares[2]:.2f} wrongly"
    )


def _below(asked: Sequence[Asked], threshold: float) -> int:
    return sum(one.score < threshold for one in asked)


def _best(answered: Sequence[Asked], near: Sequence[Asked], far: Sequence[Asked]) -> float:
    def f1(threshold: float) -> float:
        return float(_told(answered, near, far, threshold).split()[1])

    return float(max(np.arange(0.5, 1.6, 0.01), key=f1))
