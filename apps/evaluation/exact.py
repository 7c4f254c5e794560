"""The ranking that dense search approximates: every vector of a collection compared with the query's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apps.access import tenancy
from apps.access.sql import execute, load
from apps.documents.db import vector_from
from apps.documents.models import Collection
from apps.documents.spaces import embedder_for

from .metrics import measure
from .types import Judged, Question

QUERIES = load(Path(__file__).parent / "sql")
TOLERANCE = 0.005  # of nDCG, between dense search and this
BATCH = 64


def judge_exactly(*, collection: Collection, questions: Sequence[Question], k: int) -> list[Judged]:
    """Outside of a scope: the first k documents of each question by cosine, a document's being that of its best chunk.

    Holds all vectors in memory: 4 bytes x dimensions x chunks. Labels must name documents by their source URIs.
    """
    with tenancy.scope(collection.tenant_id):
        statement = QUERIES["vectors"].format(table=collection.space.table)
        rows = execute(statement, {"collection": collection.id}).fetchall()
    names = [name for name, _ in rows]
    vectors = np.stack([vector_from(sent) for _, sent in rows])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embedder = embedder_for(collection.space)
    judged = []
    for start in range(0, len(questions), BATCH):
        some = questions[start : start + BATCH]
        for question, query in zip(some, embedder.embed([each.text for each in some]), strict=True):
            order = np.argsort(-(vectors @ query), kind="stable")
            ranked = tuple(dict.fromkeys(names[at] for at in order))[:k]
            judged.append(Judged(question, ranked, measure(ranked, question.relevant, k)))
    return judged
