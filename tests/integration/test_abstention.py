"""The gate on answers without a language model: what is quoted holds the answer, and where there is none they say so.

By the real embedding model and the product's own search, judged by what `python -m benchmarks answers` judges by. A
little under what was measured on 2026-11-23.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import pytest

from apps.access.models import Tenant
from apps.documents.models import EmbeddingSpace
from apps.evaluation import corpus, sets
from apps.evaluation.types import LabelledSet, Question
from benchmarks.answers import SHARED, abstention, ask

SAMPLE = Path(__file__).parent.parent / "samples" / "farm_and_sea"


def loaded(tenant: Tenant, labelled: LabelledSet, space: EmbeddingSpace) -> str:
    slug = corpus.slug_for(labelled)
    corpus.load(labelled, tenant_id=tenant.id, slug=slug, space=space.slug, told=lambda _: None)
    return slug


def test_of_a_sample_it_quotes_what_answers_and_nothing_else(tenant: Tenant, real_space: EmbeddingSpace) -> None:
    """24 questions that it answers, 12 on its topics that it does not, 12 on none of them."""
    (labelled,) = sets.read(SAMPLE)
    slug = loaded(tenant, labelled, real_space)
    asked = [json.loads(line) for line in (SAMPLE / "asked.jsonl").read_text().splitlines()]
    found = [
        ask(tenant.id, slug, Question(str(number), one["text"], {one["relevant"]: 1}, tuple(one["answers"])))
        for number, one in enumerate(asked)
    ]
    f1, on, off, wrongly = abstention(found[:24], found[24:36], found[36:])
    assert mean(one.held for one in found[:24]) >= 0.9, [
        one["text"] for one, what in zip(asked, found, strict=False) if not what.held
    ]
    assert f1 >= 0.85, (f1, on, off, wrongly)


@pytest.mark.parametrize(("language", "held", "f1"), [("en", 0.87, 0.82), ("zh", 0.8, 0.77)])
def test_of_labelled_questions(
    tenant: Tenant, real_space: EmbeddingSpace, language: str, held: float, f1: float
) -> None:
    """Of XQuAD, where it lies beside the repository: forty questions of each language."""
    if not SHARED.is_dir():
        pytest.skip("no labelled questions beside the repository")
    parts = {each.language: each for each in sets.read(SHARED / "xquad")}
    slug = loaded(tenant, parts[language], real_space)
    (sample,) = sets.read(SAMPLE)
    elsewhere = loaded(tenant, sample, real_space)
    asked = sets.sample(parts[language].questions, size=40, seed=5)
    answered = [ask(tenant.id, slug, question) for question in asked]
    near = [ask(tenant.id, slug, question, but=True) for question in asked]
    far = [ask(tenant.id, elsewhere, question) for question in asked]
    told = abstention(answered, near, far)
    assert mean(one.held for one in answered) >= held * mean(one.found for one in answered)
    assert told[0] >= f1, told
