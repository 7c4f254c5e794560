"""Pages with their successive versions: as of each date every question is answered from the version of that date."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from apps.access import tenancy
from apps.documents import db
from apps.documents.accept import Accepted
from apps.documents.models import Collection
from tests.support.asking import ask
from tests.support.refusals import SEARCH

Put = Callable[..., Accepted]
SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "versions"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "versions"


@dataclass
class Page:
    """A page's texts by version, its document, and which version was live at which date."""

    texts: dict[int, str]
    id: UUID | None = None
    live: dict[datetime, int] = field(default_factory=dict)


def questions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]


def replayed(folder: Path, collection: Collection, ingest: Put) -> dict[str, Page]:
    """Every page's first version, then every page's second one and so on, with a date after each round."""
    pages = {}
    for name in sorted({question["doc"] for question in questions(folder)}):
        pages[name] = Page({int(path.stem): path.read_text() for path in (folder / name).glob("*.txt")})
    for version in range(1, max(max(page.texts) for page in pages.values()) + 1):
        for name, page in pages.items():
            if version in page.texts:
                kind = "text/x-rst" if name.startswith("celery") else "text/markdown"
                text = page.texts[version]
                page.id = ingest(collection, text, source_uri=name, version=version, media_type=kind).document.id
        with tenancy.scope(collection.tenant_id):
            date = db.clock()
        for page in pages.values():
            page.live[date] = max(number for number in page.texts if number <= version)
    return pages


def asked(page: Page) -> Iterator[tuple[dict[str, Any], int]]:
    """Ways to ask a page in each of its versions: by each date, and by the version itself."""
    for date, version in page.live.items():
        yield {"as_of": date.isoformat()}, version
    for version in page.texts:
        yield {"filters": {"document_id": str(page.id), "version": version}}, version


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(SAMPLE, id="sample"),
        pytest.param(
            SHARED, id="shared", marks=pytest.mark.skipif(not SHARED.is_dir(), reason="no pages beside the repository")
        ),
    ],
)
def test_every_question_is_answered_from_the_version_of_the_date(
    client: httpx.Client, collection: Collection, ingest: Put, folder: Path
) -> None:
    pages = replayed(folder, collection, ingest)
    compared = 0
    for question in questions(folder):
        page = pages[question["doc"]]
        answers = {each["n"]: each["answer"] and str(each["answer"]) for each in question["answers"]}
        for when, version in asked(page):
            body = {"query": question["question"], "mode": "lexical", "k": 200} | when
            found = client.post(SEARCH, json=body).json()["results"]
            hits = [hit for hit in found if hit["document_id"] == str(page.id)]
            assert {hit["version"] for hit in hits} == {version}, (question["id"], when)
            text = page.texts[version]
            for other in set(filter(None, answers.values())):
                if other not in text:  # only other versions say so
                    assert not any(other in hit["text"] for hit in hits), (question["id"], when, other)
            if answers.get(version) and answers[version] in text and question["kind"] != "latest":
                assert any(answers[version] in hit["text"] for hit in hits), (question["id"], when)
                compared += 1
    assert compared > 10


def test_an_answer_cites_the_version_of_the_date(client: httpx.Client, collection: Collection, ingest: Put) -> None:
    pages = replayed(SAMPLE, collection, ingest)
    for question in questions(SAMPLE):
        page = pages[question["doc"]]
        for when, version in asked(page):
            expected = next(each["answer"] for each in question["answers"] if each["n"] == version)
            answer = ask(client, question["question"], **when)
            cited = {each["version"] for each in answer["citations"] if each["document_id"] == str(page.id)}
            assert cited <= {version}, (question["id"], when)
            if expected is not None:
                assert expected in answer["answer"], (question["id"], when, answer["answer"])
            for each in answer["citations"]:
                assert (
                    each["quote"]
                    in pages[next(n for n in pages if str(pages[n].id) == each["document_id"])].texts[each["version"]]
                )
