"""How good answers without a language model are: SQuAD-like sets, quotes as the product gives them.

Of each set the whole corpus is in a collection, and BENCH_QUESTIONS of its questions (150) are asked twice by
`answers.prepare` and the extractive writer, with k = 8: as they are, and with the documents that answer them filtered
out, so that the sources are on the topic and do not answer (but other documents may, as nobody judged those: some of
these abstentions are wrongly asked for). Once more they are asked of another set's collection.

- answer in citation: the share of answers one of whose quotes holds a gold answer, beside the share of searches one
  of whose passages' documents is the gold one (recall@8).
- abstention: F1 of "the sources do not answer", where half of the questions are answered by what the search found and
  a quarter each are of the two other kinds; and the threshold that would be best for it, found on every other question
  and judged on the rest.

`tests/integration/test_abstention.py` holds CI to the second, by what is here.
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
        here = [ask(tenant_id, slug, question) for question in labelled.questions]
        without = [ask(tenant_id, slug, question, but=True) for question in labelled.questions]
        elsewhere = [ask(tenant_id, other, question) for question in labelled.questions]
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


def ask(tenant_id: UUID, slug: str, question: Question, *, but: bool = False) -> Asked:
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


def abstention(
    answered: Sequence[Asked], near: Sequence[Asked], far: Sequence[Asked], threshold: float = extractive.THRESHOLD
) -> tuple[float, float, float, float]:
    """F1 of abstaining, and of what part it abstains: on the topic, of another, and wrongly. What the search did not
    find is left out: to abstain is right there, and says nothing of how well an answer is known."""
    on, off, wrongly = (
        statistics.mean(one.score < threshold for one in asked)
        for asked in (near, far, [one for one in answered if one.found])
    )
    rightly = (on + off) / 2
    return 2 * rightly / (1 + rightly + wrongly), on, off, wrongly


def _told(answered: Sequence[Asked], near: Sequence[Asked], far: Sequence[Asked], threshold: float) -> str:
    f1, on, off, wrongly = abstention(answered, near, far, threshold)
    return f"F1 {f1:.3f}; says so of {on:.2f} on the topic, {off:.2f} of another, {wrongly:.2f} wrongly"


def _best(answered: Sequence[Asked], near: Sequence[Asked], far: Sequence[Asked]) -> float:
    thresholds = np.arange(0.5, 2.5, 0.01).tolist()
    return float(max(thresholds, key=lambda threshold: abstention(answered, near, far, threshold)))
