"""Sets kept in the product, as verbs; all inside a scope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from apps.access.problems import Problem
from apps.documents import collections
from apps.documents.erasure import erased_name, is_erased
from apps.documents.models import Collection, Document

from .models import EvaluationSet, Label, LabelledQuery
from .types import Question

MAX_QUERIES = 2_000


def find(set_id: UUID) -> EvaluationSet:
    """Raises Problem 404."""
    found = EvaluationSet.objects.filter(id=set_id).first()
    if found is None:
        raise Problem(404, "not_found", "There is no such set.")
    return found


def create(
    *, tenant_id: UUID, name: str, collection: str, queries: Sequence[dict[str, Any]], description: str = ""
) -> EvaluationSet:
    """queries: {query, answer?, relevant: [{document_id or source_uri, grade}]}. Raises Problem 422 for an unknown
    collection, 409 for a name that is taken."""
    collections.find(collection, writing=True)
    made = EvaluationSet(tenant_id=tenant_id, name=name, description=description, collection=collection)
    try:
        with transaction.atomic():
            made.save(force_insert=True)
    except IntegrityError:
        raise Problem(409, "name_taken", f"There is a set {name!r} already.")
    rows = [
        LabelledQuery(tenant_id=tenant_id, set=made, number=number, query=each["query"], answer=each.get("answer", ""))
        for number, each in enumerate(queries, start=1)
    ]
    LabelledQuery.objects.bulk_create(rows)
    Label.objects.bulk_create(
        Label(tenant_id=tenant_id, query=row, **label)
        for row, each in zip(rows, queries, strict=True)
        for label in each["relevant"]
    )
    return made


def questions(set_id: UUID) -> dict[UUID, Question]:
    """The queries of a set in their order, by their ids."""
    found = LabelledQuery.objects.filter(set_id=set_id).order_by("number").prefetch_related("labels")
    return {
        each.id: Question(
            id=str(each.id),
            text=each.query,
            relevant={str(label): label.grade for label in each.labels.all()},
            answers=(each.answer,) if each.answer else (),
        )
        for each in found
    }


def show(found: EvaluationSet) -> dict[str, Any]:
    """A set without its queries; `last_run` is the newest one."""
    last = found.runs.order_by("-created_at").first()
    return {
        "id": found.id,
        "name": found.name,
        "description": found.description,
        "collection": found.collection,
        "queries": found.queries.count(),
        "last_run": last and {"id": last.id, "state": last.state, "k": last.k, "metrics": last.metrics},
        "created_at": found.created_at,
    }


def show_queries(found: EvaluationSet) -> list[dict[str, Any]]:
    rows = found.queries.order_by("number").prefetch_related("labels")
    return [
        {
            "query": row.query,
            "answer": row.answer or None,
            "relevant": [
                {"document_id": label.document_id, "source_uri": label.source_uri or None, "grade": label.grade}
                for label in row.labels.all()
            ],
        }
        for row in rows
    ]


def count_about(document_id: UUID) -> int:
    """Labelled queries that name a document, which may have been erased."""
    return len(_about(document_id))


def forget_about(document_id: UUID) -> int:
    """Remove them, and their results: a question and its answer may have been written from the document's text."""
    return LabelledQuery.objects.filter(id__in=_about(document_id)).delete()[0]


def _about(document_id: UUID) -> set[UUID]:
    found = set(Label.objects.filter(document_id=document_id).values_list("query_id", flat=True))
    document = Document.objects.filter(id=document_id).first()
    if document is None:
        return found
    slug = Collection.objects.values_list("slug", flat=True).get(id=document.collection_id)
    named = Label.objects.filter(query__set__collection=slug)
    if not is_erased(document):
        return found | set(named.filter(source_uri=document.source_uri).values_list("query_id", flat=True))
    pairs = named.exclude(source_uri="").values_list("query_id", "source_uri")
    name = document.source_uri  # a digest of what it was
    return found | {query_id for query_id, uri in pairs if erased_name(document.collection_id, uri) == name}
