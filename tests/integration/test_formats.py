"""Files of many formats from the upload to the citation, through real workers and their sandbox."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import httpx

from apps.documents.models import Collection
from tests.support.asking import ask
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
