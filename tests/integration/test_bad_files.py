"""Files that hold no text, or hold it broken: refused, or failed with a reason, and never live."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from apps.documents.models import Collection
from tests.support.processes import wait_for
from tests.support.refusals import DOCUMENTS, SEARCH, nothing_stored, refused

BAD_FILES = Path(__file__).resolve().parents[3] / "shared" / "data" / "files" / "bad"


WITHOUT_TEXT = [
    (b"\x00\x00\x00\x18ftypmp42" + bytes(64), "film.mp4", "video/mp4"),
    (b"ID3\x03\x00" + bytes(64), "song.mp3", "audio/mpeg"),
    (b"RIFF\x24\x08\x00\x00WAVEfmt " + bytes(64), "sound.wav", "audio/wav"),
    (b"\x7fELF\x02\x01\x01" + bytes(64), "program", "application/octet-stream"),
    (b"MZ\x90\x00" + bytes(200), "program.exe", "application/x-msdownload"),
    (b"\x01\x02\x03\x00" * 30, "image.xyz", "image/x-unknown"),
]


@pytest.mark.parametrize(("content", "filename", "kind"), WITHOUT_TEXT, ids=[row[1] for row in WITHOUT_TEXT])
def test_sound_video_and_programs_are_a_415(
    client: httpx.Client, collection: Collection, content: bytes, filename: str, kind: str
) -> None:
    response = client.post(DOCUMENTS, data={"collection": "docs"}, files={"file": (filename, content, kind)})
    refused(response, 415, "unsupported", "/file")
    assert nothing_stored(client)


@pytest.mark.parametrize(
    ("content", "filename", "kind"),
    [
        (b"const a: number = 1", "module.ts", "video/mp2t"),  # what some systems say of TypeScript
        (b"ID3 tags are metadata.", "about.txt", "text/plain"),
        (b"%PDF-1.4 no more", "picture.png", "image/png"),
        (b"\x01\x02\x03\x00" * 30, "thing.bin", "application/octet-stream"),
    ],
)
def test_what_is_less_certain_is_accepted(
    client: httpx.Client, collection: Collection, content: bytes, filename: str, kind: str
) -> None:
    response = client.post(DOCUMENTS, data={"collection": "docs"}, files={"file": (filename, content, kind)})
    assert response.status_code == 202, response.text


@pytest.mark.parametrize("kind", ["application/pdf", "image/png", "application/x-msdownload", "text/x-unheard-of"])
def test_a_text_of_a_format_that_is_not_text_is_a_415(client: httpx.Client, collection: Collection, kind: str) -> None:
    body = {"collection": "docs", "text": "hello", "media_type": kind}
    refused(client.post(DOCUMENTS, json=body), 415, "unsupported", "/media_type")
    assert nothing_stored(client)


@pytest.mark.skipif(not BAD_FILES.is_dir(), reason="no corpus of bad files beside the repository")
@pytest.mark.parametrize("mode", ["write_through", "write_back"])
@pytest.mark.parametrize(
    "name",
    [
        "pdfminer.six__zen_of_python_corrupted.pdf",
        "unstructured__password.pdf",
        "pdf.js__empty_protected.pdf",
        "pdf.js__REDHAT-1531897-0.pdf",
        "unstructured__empty.txt",
        "pocs__pdf_zip_pe.pdf",
    ],
)
def test_a_bad_file_fails_with_a_reason(
    client: httpx.Client, collection: Collection, workers: object, mode: str, name: str
) -> None:
    content = (BAD_FILES / name).read_bytes()
    kind = "application/pdf" if name.endswith("pdf") else "text/plain"
    form = {"collection": "docs", "mode": mode}
    response = client.post(DOCUMENTS, data=form, files={"file": (name, content, kind)})
    if not content:
        refused(response, 422, "empty", "/file")
        assert nothing_stored(client)
        return
    if response.status_code == 415:
        refused(response, 415, "unsupported")
        return
    if mode == "write_through":
        assert response.status_code in (201, 422), response.text
        document_id = response.json()["id"]
    else:
        assert response.status_code == 202, response.text
        document_id = response.json()["id"]
    settled = wait_for(lambda: _settled(client, document_id), seconds=60, what=f"{name} to settle")
    if mode == "write_through" and response.status_code == 422:
        assert refused(response, 422, pointer="/file")["code"] == settled["error"]["code"]
    if settled["state"] == "failed":
        assert re.fullmatch(r"[a-z_]+", settled["error"]["code"]) and settled["error"]["code"] != "internal"
        assert "Traceback" not in settled["error"]["detail"]
        assert client.get(f"{DOCUMENTS}/{document_id}/chunks").json()["results"] == []


def _settled(client: httpx.Client, document_id: str) -> dict | None:
    body = client.get(f"{DOCUMENTS}/{document_id}").json()
    return body if body["state"] in ("live", "failed") else None


GARBLED = [
    ("a NUL", b"pangolins have\x00 scales", "a.txt", "byte 14 "),
    ("a NUL in Markdown", b"# Pangolins\n\nThey have\x00scales.", "a.md", "byte 22 "),
    ("a NUL in HTML", b"<html><body><p>pangolins\x00 have scales", "a.html", "byte 24 "),
    (
        "a broken byte in UTF-8",
        "Größe und Länge, déjà\udcff vu".encode("utf-8", "surrogateescape"),
        "a.txt",
        "byte 26 ",
    ),
    ("bytes of no encoding", b"pangolins \xff\xfe\xfd have scales", "a.txt", "byte 10 "),
]


@pytest.mark.parametrize(
    ("content", "filename", "place"), [row[1:] for row in GARBLED], ids=[row[0] for row in GARBLED]
)
def test_text_that_would_come_out_garbled_is_refused_at_its_byte(
    client: httpx.Client, collection: Collection, content: bytes, filename: str, place: str
) -> None:
    form = {"collection": "docs", "mode": "write_through"}
    response = client.post(DOCUMENTS, data=form, files={"file": (filename, content)})
    problem = refused(response, 422, "undecodable", "/file")
    assert place in problem["detail"].lower()
    document = client.get(f"{DOCUMENTS}/{problem['id']}").json()
    assert (document["state"], document["live_version"]) == ("failed", None)
    assert document["error"]["code"] == "undecodable"
    assert client.get(f"{DOCUMENTS}/{problem['id']}/chunks").json()["results"] == []
    assert client.post(SEARCH, json={"query": "pangolins have scales Größe"}).json()["results"] == []


def test_a_garbled_update_leaves_the_old_text_live(client: httpx.Client, collection: Collection) -> None:
    form = {"collection": "docs", "mode": "write_through", "source_uri": "one"}
    made = client.post(DOCUMENTS, data=form, files={"file": ("a.txt", b"pangolins have scales")})
    assert made.status_code == 201, made.text
    refused(client.post(DOCUMENTS, data=form, files={"file": ("a.txt", b"pangolins\x00fly")}), 422, "undecodable")
    [hit] = client.post(SEARCH, json={"query": "pangolins"}).json()["results"]
    assert (hit["text"], hit["version"]) == ("pangolins have scales", 1)


@pytest.mark.parametrize("encoding", ["cp1251", "cp866", "koi8-r", "utf-16-le", "utf-16-be", "utf-16"])
def test_a_file_in_another_encoding_is_found_by_its_words(
    client: httpx.Client, collection: Collection, encoding: str
) -> None:
    text = "Панголины покрыты чешуёй и питаются муравьями."
    form = {"collection": "docs", "mode": "write_through"}
    made = client.post(DOCUMENTS, data=form, files={"file": ("a.txt", text.encode(encoding))})
    assert made.status_code == 201, made.text
    [hit] = client.post(SEARCH, json={"query": "чешуёй"}).json()["results"]
    assert hit["text"] == text
