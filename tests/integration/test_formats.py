"""Files of many formats from the upload to the citation, through real workers and their sandbox."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from apps.documents.models import Collection
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery
from tests.support.asking import ask
from tests.support.papers import archive as paged_archive
from tests.support.refusals import DOCUMENTS, SEARCH

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


def upload(client: httpx.Client, name: str, content: bytes, kind: str = "application/octet-stream") -> dict[str, Any]:
    form = {"collection": "docs", "mode": "write_through"}
    response = client.post(DOCUMENTS, data=form, files={"file": (name, content, kind)}, timeout=60)
    assert response.status_code == 201, response.text
    return response.json()


def test_a_citation_names_page_and_heading(client: httpx.Client, collection: Collection) -> None:
    made = upload(client, "report.pdf", (SAMPLES / "sample.pdf").read_bytes())
    chunks = client.get(f"{DOCUMENTS}/{made['id']}/chunks").json()["results"]
    assert [chunk["page"] for chunk in chunks] == sorted(chunk["page"] for chunk in chunks)
    assert {chunk["page"] for chunk in chunks} <= {1, 2} and chunks[0]["page"] == 1
    found = client.post(SEARCH, json={"query": "cranes were painted"}).json()["results"][0]
    assert found["page"] == 1 and "page_starts" not in found
    answer = ask(client, "When did the harbour open?")
    cited = answer["citations"][0]
    assert cited["page"] == 1 and cited["heading_path"] == found["heading_path"] != []
    whole = client.get(f"{DOCUMENTS}/{made['id']}/versions/1/text").json()["text"]
    assert whole[cited["start"] : cited["end"]] == cited["quote"]


def test_each_member_of_an_archive_has_its_own_pages(client: httpx.Client, collection: Collection) -> None:
    def told(text: str) -> list[tuple[int, int | None]]:
        """(where, page) of each sentence of a text, which name their pages."""
        return [(found.start(), int(found[1]) or None) for found in re.finditer(r"berth-(\d)", text)]

    client.patch("/api/v1/collections/docs", json={"chunking": {"max_tokens": 60, "overlap_tokens": 0}})
    made = upload(client, "papers.zip", paged_archive(), "application/zip")
    chunks = client.get(f"{DOCUMENTS}/{made['id']}/chunks?limit=100").json()["results"]
    assert [chunk["page"] for chunk in chunks] == [told(chunk["text"])[0][1] for chunk in chunks]
    pages = {chunk["heading_path"][-1]: set() for chunk in chunks}
    for chunk in chunks:
        pages[chunk["heading_path"][-1]].add(chunk["page"])
    assert pages["b.pdf"] == pages["c.pdf"] == {1} and pages["d.pdf"] == {1, 2, 3} and pages["inner.pdf"] == {1, 2}
    assert pages["a.txt"] == pages["f.txt"] == pages["inner.txt"] == pages["z.txt"] == {None}
    hits = search(tenant_id=collection.tenant_id, query=SearchQuery("berth", k=100)).hits
    assert {hit.chunk_id for hit in hits} == {UUID(chunk["chunk_id"]) for chunk in chunks}
    for hit in hits:
        for at, page in told(hit.text):
            assert hit.page_of(hit.start + at) == page
    for question in (
        "What does note 3 of c.pdf say?",
        "What does note 2 of e.pptx say?",
        "What does note 2 of z.txt say?",
    ):
        cited = ask(client, question)["citations"]
        assert cited and [each["page"] for each in cited] == [told(each["quote"])[0][1] for each in cited]


def test_a_format_without_pages_says_so(client: httpx.Client, collection: Collection) -> None:
    upload(client, "a.md", b"# Cranes\n\nThe third crane is yellow.", "text/markdown")
    found = client.post(SEARCH, json={"query": "yellow crane"}).json()["results"][0]
    assert found["page"] is None and found["heading_path"] == ["Cranes"]


def test_an_archive_is_one_document_and_tells_what_was_left_out(client: httpx.Client, collection: Collection) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("handbook/mooring.md", "# Mooring\n\nUse the yellow rope.")
        archive.writestr("handbook/film.mp4", b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)))
    made = upload(client, "handbook.zip", packed.getvalue(), "application/zip")
    found = client.post(SEARCH, json={"query": "yellow rope"}).json()["results"][0]
    assert found["heading_path"] == ["handbook/mooring.md", "Mooring"]
    version = client.get(f"{DOCUMENTS}/{made['id']}/versions/1").json()
    assert [note.split(" was left out")[0] for note in version["notes"]] == ["handbook/film.mp4"]
