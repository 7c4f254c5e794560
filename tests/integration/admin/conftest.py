"""A curator at the desk, and something to look after."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.test import Client

from apps.access import keys, tenancy
from apps.access.models import ApiKey, Tenant, User
from apps.documents.models import Collection, Document, EmbeddingSpace, IngestionJob, Source
from apps.documents.sources import verbs
from apps.evaluation import runs, stored
from apps.evaluation.models import EvaluationRun, EvaluationSet
from apps.generation import answers, feedback, queries, reports
from apps.generation.models import Answer, Query, WeeklyReport
from apps.generation.types import AnswerRequest
from tests.support.desk import Ingest, make_curator, sign_in


@pytest.fixture
def curator(tenant: Tenant) -> User:
    return make_curator(tenant)


@pytest.fixture
def desk(curator: User) -> Client:
    return sign_in(curator)


@pytest.fixture
def document(collection: Collection, ingest: Ingest) -> Document:
    text = "# Harbour\n\nThe lighthouse keeper counts ships.\n\n# Hills\n\nSheep graze above the town."
    return ingest(collection, text, media_type="text/markdown", source_uri="harbour", title="Harbour notes").document


@pytest.fixture
def dead_job(collection: Collection, ingest: Ingest) -> IngestionJob:
    job = ingest(collection, b"%PDF-1.4 broken", media_type="application/pdf", source_uri="broken.pdf").job
    assert job is not None
    return job


@pytest.fixture
def source(collection: Collection, tmp_path: Path) -> Source:
    """A folder with two pages, which nobody has read yet."""
    for name in ("harbour", "hills"):
        (tmp_path / f"{name}.md").write_text(f"# The {name}\n\nWhat is known of the {name}.\n")
    settings = {"path": str(tmp_path), "exclude": ["drafts/"], "watch": False}
    with tenancy.scope(collection.tenant_id):
        return verbs.create(
            tenant_id=collection.tenant_id, collection="docs", kind="folder", name="Harbour files", settings=settings
        )


@pytest.fixture
def measured(document: Document) -> EvaluationRun:
    """A run of a set of one question, which has been done."""
    queries = [{"query": "Who counts ships in the harbour?", "relevant": [{"source_uri": "harbour", "grade": 1}]}]
    with tenancy.scope(document.tenant_id):
        made = stored.create(tenant_id=document.tenant_id, name="Harbour questions", collection="docs", queries=queries)
        run = runs.request(found=made, modes=["lexical"], k=10)
    runs.start(run)
    return run


@pytest.fixture
def answered(document: Document) -> Answer:
    """An answer, and what the holders of two keys say of it."""
    tenant_id = document.tenant_id
    request = AnswerRequest("Who counts ships at the harbour?")
    answer_id = UUID(answers.answer(tenant_id=tenant_id, request=request)["id"])
    for rating, comment in (("up", "Harbour pilots agree."), ("down", "He <b>sleeps</b>.")):
        key, _ = keys.create_key(tenant_id=tenant_id, name=f"app {rating}", scopes=["read"])
        said = {"rating": rating, "comment": comment, "tags": ["ships"]}
        feedback.give(tenant_id=tenant_id, key_id=key.id, answer_id=answer_id, **said)
    with tenancy.scope(tenant_id):
        return Answer.objects.get(id=answer_id)


@pytest.fixture
def asked(document: Document) -> Iterator[Query]:
    """A query that no worker has answered."""
    request = AnswerRequest("Who counts sheep above the Harbour?")
    query = queries.accept(tenant_id=document.tenant_id, request=request, priority="low")
    yield query
    with tenancy.scope(document.tenant_id):
        Query.objects.all().delete()


@pytest.fixture
def reported(answered: Answer) -> WeeklyReport:
    """Of the week that it was asked in, which is not over."""
    day = answered.created_at.date()
    reports.write(tenant_id=answered.tenant_id, week=day - timedelta(days=day.weekday()))
    with tenancy.scope(answered.tenant_id):
        return WeeklyReport.objects.get()


@pytest.fixture
def owned(
    tenant: Tenant,
    curator: User,
    document: Document,
    dead_job: IngestionJob,
    source: Source,
    answered: Answer,
    reported: WeeklyReport,
    asked: Query,
    measured: EvaluationRun,
) -> dict[type, Any]:
    """One object of each registered model, of the tenant's own."""
    key, _ = keys.create_key(tenant_id=tenant.id, name="switchboard", scopes=["read"])
    space = EmbeddingSpace.objects.order_by("created_at")[0]
    return {
        Collection: document.collection_id,
        Document: document.pk,
        Source: source.pk,
        IngestionJob: dead_job.pk,
        EmbeddingSpace: space.pk,
        Answer: answered.pk,
        Query: asked.pk,
        WeeklyReport: reported.pk,
        EvaluationSet: measured.set_id,
        EvaluationRun: measured.pk,
        ApiKey: key.pk,
        User: curator.pk,
    }
