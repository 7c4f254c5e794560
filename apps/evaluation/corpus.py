"""Puts the documents of a labelled set into a collection of its own."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any
from uuid import UUID

from apps.access import tenancy
from apps.access.problems import Problem
from apps.documents import bulk, collections, lexicon
from apps.documents.accept import Submission
from apps.documents.models import Collection, Document

from .types import LabelledSet, Page

GROUP = 200
#: Postgres' text search configurations for languages by their ISO 639-1 codes; others have no stemming.
STEMMED = {
    **{"ar": "arabic", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish"},
    **{"fi": "finnish", "fr": "french", "hi": "hindi", "hu": "hungarian", "id": "indonesian", "it": "italian"},
    **{"nl": "dutch", "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sv": "swedish"},
    **{"tr": "turkish"},
}


def slug_for(labelled: LabelledSet, name: str = "") -> str:
    """The collection of a set: `name`, or eval-<set>; where the set has a language, with that at the end."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", labelled.name.lower()).strip("-_")
    return "-".join(part for part in (name or f"eval-{plain}", labelled.language) if part)[:64]


def load(
    labelled: LabelledSet, *, tenant_id: UUID, slug: str, space: str | None, told: Callable[[int], Any]
) -> Collection:
    """The set's documents, all of them live, in the collection `slug`, which is made where there is none.

    What is there already is not embedded again. told: called with how many more are done. Raises Problem for what
    cannot be taken, and 409 `foreign_documents` where the collection holds others as well.
    """
    with tenancy.scope(tenant_id):
        collection = Collection.objects.select_related("space").filter(slug=slug).first() or collections.create(
            tenant_id=tenant_id,
            slug=slug,
            name=f"Evaluation: {labelled.name} {labelled.language}".strip(),
            language=STEMMED.get(labelled.language, "simple") if labelled.language else "english",
            **({} if space is None else {"space": space}),
        )
    for group in _groups(labelled.pages):
        outcomes = bulk.put_here(collection=collection, submissions=[_submission(page) for page in group])
        for outcome in outcomes:
            if isinstance(outcome, Problem):
                raise outcome
        told(len(group))
    with tenancy.scope(tenant_id):
        there = Document.objects.filter(collection=collection, deleted_at=None).count()
    if there != len(labelled.pages):
        detail = f"The collection {slug!r} holds {there} documents, the set has {len(labelled.pages)}."
        raise Problem(409, "foreign_documents", detail)
    lexicon.count_due(only=collection.id)  # as beat would within a minute
    return collection


def _submission(page: Page) -> Submission:
    content = io.BytesIO(page.content.encode())
    return Submission(content, "text/plain; charset=utf-8", "", source_uri=page.id, title=page.title or page.id)


def _groups(pages: Sequence[Page]) -> Iterator[list[Page]]:
    rest = iter(pages)
    while group := list(islice(rest, GROUP)):
        yield group
