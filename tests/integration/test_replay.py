"""Real pages with their real successive versions: replayed in order, out of order and twice (invariants I1, I2, I5)."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from apps.access import tenancy
from apps.documents.models import Collection, Document, IngestionJob
from tests.support.processes import Workers, wait_for
from tests.support.refusals import SEARCH

from .test_bulk import send
from .test_races import assert_whole

VERSIONS = Path(__file__).resolve().parents[3] / "shared" / "data" / "versions"
pytestmark = pytest.mark.skipif(not VERSIONS.is_dir(), reason="no pages with versions beside the repository")

Event = tuple[str, int, str]  # page, version, text


def questions() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (VERSIONS / "questions.jsonl").read_text().splitlines()]


def events() -> list[Event]:
    """Every version of the pages that questions are asked about, page by page in order."""
    pages = sorted({question["doc"] for question in questions()})
    return [
        (page, int(path.stem), path.read_text())
        for page in pages
        for path in sorted((VERSIONS / page).glob("*.txt"), key=lambda path: int(path.stem))
    ]


def line(event: Event) -> bytes:
    page, version, text = event
    kind = "text/x-rst" if page.startswith("celery") else "text/markdown"
    body = {"collection": "docs", "source_uri": page, "version": version, "text": text, "media_type": kind}
    return json.dumps(body).encode() + b"\n"


def replayed(order: str) -> list[Event]:
    given = events()
    dice = random.Random(5)
    if order == "in order":
        return sorted(given, key=lambda event: event[1])
    if order == "out of order":
        return dice.sample(given, len(given))
    return dice.sample(given * 2, len(given) * 2)


@pytest.mark.parametrize("order", ["in order", "out of order", "twice"])
def test_whatever_the_order_the_newest_version_is_live_and_nothing_else_answers(
    client: httpx.Client, collection: Collection, workers: Workers, order: str
) -> None:
    given = replayed(order)
    for at in range(0, len(given), 60):  # workers publish what came before while more comes
        results = send(client, map(line, given[at : at + 60]))
        assert {each["status"] for each in results} <= ({202} if order == "in order" else {200, 202, 409})

    newest: dict[str, tuple[int, str]] = {}
    for page, version, text in events():
        newest[page] = (version, text)

    def settled() -> bool:
        with tenancy.scope(collection.tenant_id):
            return not IngestionJob.objects.filter(state__in=["queued", "running"]).exists()

    wait_for(settled, seconds=120, what="the jobs to end")
    assert_whole(collection, documents=len(newest))
    with tenancy.scope(collection.tenant_id):
        for document in Document.objects.filter(collection=collection):
            version, text = newest[document.source_uri]
            assert (document.version, document.live_version) == (version, version)
            assert bytes(document.content_sha256) == hashlib.sha256(text.encode()).digest()
    for question in questions():
        _ask(client, question, newest[question["doc"]])


def _ask(client: httpx.Client, question: dict[str, Any], newest: tuple[int, str]) -> None:
    """What a search finds of the page is its newest version's, and holds no answer that only older ones gave."""
    version, text = newest
    found = client.post(SEARCH, json={"query": question["question"], "mode": "lexical", "k": 200}).json()
    hits = [hit for hit in found["results"] if hit["source_uri"] == question["doc"]]
    assert hits and {hit["version"] for hit in hits} == {version}
    answers = [str(each["answer"]) for each in question["answers"] if each["answer"] is not None]
    outdated = [answer for answer in answers if answer not in text]
    assert not [answer for answer in outdated for hit in hits if answer in hit["text"]]
    current = question["answers"][-1]["answer"]
    if current is not None and str(current) in text and question["kind"] != "latest":
        assert any(str(current) in hit["text"] for hit in hits), question["question"]
