"""Multipart forms as clumsy and hostile clients put them together."""

from __future__ import annotations

import httpx
import pytest

from apps.documents.models import Collection
from tests.support.refusals import DOCUMENTS, nothing_stored, refused


def field(name: str, value: str | bytes) -> bytes:
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
    return head + (value.encode() if isinstance(value, str) else value) + b"\r\n"


def part(content: bytes = b"hello", name: str = "file", filename: str = "a.txt", kind: str = "text/plain") -> bytes:
    head = (
        f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: {kind}\r\n\r\n'
    )
    return head.encode() + content + b"\r\n"


DOCS, END = field("collection", "docs"), b"--x--\r\n"
BAD_FORMS: list[tuple[str, bytes, int, str | None]] = [
    ("two files", DOCS + part() + part(b"second", filename="b.txt"), 400, "/file"),
    ("a field twice", DOCS + DOCS + part(), 400, "/collection"),
    ("text and file", DOCS + field("text", "x") + part(), 400, "/file"),
    ("neither", DOCS, 400, "/text"),
    ("a file that is a field", DOCS + field("file", "x"), 400, "/file"),
    ("a field that is a file", DOCS + part(name="text"), 400, "/text"),
    ("an unknown file", DOCS + part() + part(name="other"), 400, "/other"),
    ("an empty file", DOCS + part(b""), 422, "/file"),
    ("a field that is not UTF-8", DOCS + field("text", b"\xff\xfe abc"), 400, "/text"),
    ("a null character", DOCS + field("source_uri", "a\x00") + part(), 400, "/source_uri"),
    ("metadata cut off", DOCS + field("metadata", "{") + part(), 400, "/metadata"),
    ("metadata 20,000 deep", DOCS + field("metadata", "[" * 20_000) + part(), 400, "/metadata"),
    ("metadata that is a list", DOCS + field("metadata", "[]") + part(), 400, "/metadata"),
    ("a version with a point", DOCS + field("version", "1.0") + part(), 400, "/version"),
    ("a version of 5,000 digits", DOCS + field("version", "9" * 5_000) + part(), 400, "/version"),
    ("bad base64", DOCS + part().replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!"), 400, None),
    ("2,000 fields", b"".join(field(f"f{n}", "x") for n in range(2_000)), 400, None),
    ("300 files", b"".join(part(name=f"f{n}") for n in range(300)), 400, None),
    ("a long file name", DOCS + part(filename="a" * 5_000), 400, None),
]


@pytest.mark.parametrize(
    ("body", "status", "pointer"), [row[1:] for row in BAD_FORMS], ids=[row[0] for row in BAD_FORMS]
)
def test_a_bad_form_is_refused(
    client: httpx.Client, collection: Collection, body: bytes, status: int, pointer: str | None
) -> None:
    response = client.post(DOCUMENTS, content=body + END, headers={"Content-Type": "multipart/form-data; boundary=x"})
    refused(response, status, pointer=pointer)
    assert nothing_stored(client)


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=other", "; boundary=é", "; boundary=" + "y" * 400])
def test_a_form_without_its_boundary_is_refused(client: httpx.Client, collection: Collection, boundary: str) -> None:
    kind = ("multipart/form-data" + boundary).encode()
    response = client.post(DOCUMENTS, content=DOCS + part() + END, headers={b"Content-Type": kind})
    refused(response, 415 if len(boundary) > 300 else 400)
    assert nothing_stored(client)


@pytest.mark.parametrize("charset", ["idna", "zlib", "utf-16", "unicode_escape"])
def test_a_form_is_utf_8_whatever_charset_it_claims(client: httpx.Client, collection: Collection, charset: str) -> None:
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    body = (
        DOCS
        + field("title", "grün")
        + part(b"gr\xfcn", filename="größe \U0001f642.txt", kind="text/plain; charset=latin1")
    )
    made = client.post(DOCUMENTS, content=body + END, headers={"Content-Type": kind})
    assert made.status_code == 202, made.text
    found = client.get(f"{DOCUMENTS}/{made.json()['id']}").json()
    assert (found["title"], found["source_uri"]) == ("grün", "größe \U0001f642.txt")


@pytest.mark.parametrize("kind", ["text/" + "p" * 500, "text/p\x00lain", "nonsense", "text/plain; charset=zlib"])
def test_a_part_s_odd_media_type_says_nothing(client: httpx.Client, collection: Collection, kind: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    made = client.post(
        DOCUMENTS, content=DOCS + field("mode", "write_through") + part(kind=kind) + END, headers=headers
    )
    assert made.status_code == 201, made.text
    assert client.get(f"{DOCUMENTS}/{made.json()['id']}/file").content == b"hello"
