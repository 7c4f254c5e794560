"""Documents of several pages, for tests of where a text stands."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import pptx

PAGES = {"a.txt": 0, "b.pdf": 1, "c.pdf": 1, "d.pdf": 3, "e.pptx": 2, "f.txt": 0, "g/h.zip": 2, "z.txt": 0}


def sentences(member: str, page: int) -> list[str]:
    """What stands on a page of a member, or in one without pages (0); each sentence says where."""
    return [f"Note {n} of {member} says berth-{page} is open {n} days." for n in range(6)]


def pdf(*pages: list[str]) -> bytes:
    """A page for each, a line for each of its texts."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    for lines in pages:
        body = b"BT /F1 12 Tf 72 720 Td 14 TL " + b" ".join(b"(%s) Tj T*" % line.encode() for line in lines) + b" ET"
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R /Resources << /Font << /F1"
            b" << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>" % (len(objects) + 2),
            b"<< /Length %d >> stream\n%s\nendstream" % (len(body), body),
        ]
    kids = b" ".join(b"%d 0 R" % number for number in range(3, len(objects) + 1, 2))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(pages), kids)
    whole = b"%PDF-1.4\n" + b"".join(b"%d 0 obj %s endobj\n" % pair for pair in enumerate(objects, start=1))
    return whole + b"trailer << /Root 1 0 R >>"


def slides(*pages: list[str]) -> bytes:
    made = pptx.Presentation()
    for lines in pages:
        made.slides.add_slide(made.slide_layouts[1]).placeholders[1].text = "\n".join(lines)
    buffer = io.BytesIO()
    made.save(buffer)
    return buffer.getvalue()


def archive(pages: Mapping[str, int] = PAGES) -> bytes:
    """A ZIP of members with so many pages, each with `sentences`; 0 for a format that has none."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, count in pages.items():
            texts = [sentences(name, page) for page in range(1, count + 1)]
            if name.endswith(".pdf"):
                packed.writestr(name, pdf(*texts))
            elif name.endswith(".pptx"):
                packed.writestr(name, slides(*texts))
            elif name.endswith(".zip"):
                packed.writestr(name, archive({"inner.pdf": count, "inner.txt": 0}))
            else:
                packed.writestr(name, " ".join(sentences(name, 0)))
    return buffer.getvalue()
