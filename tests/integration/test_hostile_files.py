"""Hostile and damaged files as updates of good documents: each ends with a clear outcome, whatever failed leaves the
old version answering (invariant I5), and the workers live and work on."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from apps.access import tenancy
from apps.documents.models import Collection, IngestionJob
from tests.support import hostile
from tests.support.processes import Workers, wait_for
from tests.support.refusals import DOCUMENTS, SEARCH

FILES = Path(__file__).resolve().parents[3] / "shared" / "data" / "files"
#: Outcomes of those made here: codes of errors, and "live" where there is text to be found.
MADE = {
    "bomb.zip": (hostile.zip_bomb, {"archive_bomb"}),
    "bomb.docx": (hostile.zip_bomb, {"archive_bomb"}),
    "laughs.xml": (hostile.laughs, {"malformed"}),
    "external.xml": (lambda: hostile.external_entity("/etc/passwd"), {"live", "malformed"}),
    "deep.json": (hostile.deep_json, {"malformed"}),
    "deep.xml": (hostile.deep_xml, {"malformed"}),
    "pages.pdf": (lambda: hostile.pdf_of(2_000), {"live"}),
}


def bad_files() -> Iterator[tuple[str, bytes, set[str]]]:
    """(name, content, outcomes): codes, "live", "failed" for any code."""
    for name, (make, outcomes) in MADE.items():
        yield name, make(), outcomes
    if not FILES.is_dir():
        return
    with (FILES / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["set"] == "bad":
                yield Path(row["path"]).name, (FILES / row["path"]).read_bytes(), _expected(row["expect"])


def _expected(expect: str) -> set[str]:
    if expect.startswith("refuse with"):
        return {"encrypted"}
    if expect.startswith("reported as having no text"):
        return {"empty"}
    if expect.startswith(("ingests", "text recovered")):
        return {"live"}
    return {"live", "failed"}


def test_every_bad_file_ends_clearly_and_the_old_version_answers(
    client: httpx.Client, collection: Collection, workers: Workers
) -> None:
    files = {name: (content, outcomes) for name, content, outcomes in bad_files()}
    documents: dict[str, str] = {}
    at_once: dict[str, str] = {}  # refused before they were stored
    for name in files:
        form = {"collection": "docs", "source_uri": name, "text": f"Flamingos of {name} stand on one leg."}
        documents[name] = client.post(DOCUMENTS, json=form).json()["id"]
    wait_for(lambda: _states(client) == {"live"}, seconds=120, what="the first versions")
    for name, (content, _) in files.items():
        form = {"collection": "docs", "source_uri": name}
        sent = client.post(DOCUMENTS, data=form, files={"file": (name, content)}, timeout=60)
        if sent.status_code != 202:
            assert sent.status_code in (415, 422), sent.text
            at_once[name] = sent.json()["code"]
    wait_for(lambda: _ended(collection), seconds=400, what="all jobs to end")
    for name, document_id in documents.items():
        body = client.get(f"{DOCUMENTS}/{document_id}").json()
        outcome = at_once.get(name) or (body["error"]["code"] if body["error"] else body["state"])
        wanted = files[name][1]
        assert outcome in wanted or ("failed" in wanted and outcome != "live"), f"{name}: {outcome}, not {wanted}"
        if outcome == "live":
            assert body["live_version"] == 2, name
            continue
        assert body["live_version"] == 1 and body["state"] == ("live" if name in at_once else "stale"), name
        assert re.fullmatch(r"[a-z_]+", outcome) and outcome not in ("internal", "crashed", "unavailable"), name
        if name not in at_once:
            assert "Traceback" not in body["error"]["detail"] and str(FILES) not in body["error"]["detail"], name
        found = client.post(SEARCH, json={"query": f"flamingos of {name}", "mode": "lexical", "k": 200}).json()
        assert document_id in {hit["document_id"] for hit in found["results"]}, f"{name} no longer answers"
    assert all(process.process.poll() is None for process in workers.processes)
    last = client.post(DOCUMENTS, json={"collection": "docs", "text": "Herons wade.", "mode": "write_through"})
    assert last.status_code == 201, "the workers work on"


def test_nothing_of_a_local_file_is_ever_found(client: httpx.Client, collection: Collection) -> None:
    for name in ("a.xml", "a.html", "a.svg"):
        content = hostile.external_entity("/etc/passwd")
        form = {"collection": "docs", "mode": "write_through", "source_uri": name}
        client.post(DOCUMENTS, data=form, files={"file": (name, content)})
    found = client.post(SEARCH, json={"query": "root x 0 bin bash before after", "k": 50}).json()["results"]
    assert all("root:" not in hit["text"] for hit in found)


def _states(client: httpx.Client) -> set[str]:
    found = client.get(DOCUMENTS, params={"collection": "docs", "limit": 200}).json()
    assert found["next"] is None
    return {document["state"] for document in found["results"]}


def _ended(collection: Collection) -> bool:
    with tenancy.scope(collection.tenant_id):
        return not IngestionJob.objects.filter(state__in=["queued", "running"]).exists()


@pytest.mark.parametrize("make", [hostile.pdf_of, hostile.long_line], ids=["100,000 pages", "50 MB on one line"])
def test_what_is_only_large_is_read(make: object) -> None:
    from apps.documents.parsing.sandbox import Sandbox

    with Sandbox() as box:
        data = make()  # type: ignore[operator]
        assert len(box.parse(data, filename="a.pdf" if data.startswith(b"%PDF") else "a.txt").text) > 2_000_000
        assert box.started == 1
