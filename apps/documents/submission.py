"""`POST /documents` and the lines of `POST /documents/bulk` from the wire: JSON or multipart to a Submission."""

from __future__ import annotations

import io
import re
from typing import Any, BinaryIO

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.http import QueryDict
from django.utils.encoding import force_str
from rest_framework.request import Request

from apps.access.problems import Problem, invalid
from apps.access.serializers import load_json

from .accept import Submission
from .parsing import ParseError
from .parsing.encoding import binary_kind, byte_order_mark
from .parsing.formats import detect
from .serializers import MAX_MEDIA_TYPE, MEDIA_TYPE, SubmissionSerializer

GENERIC, PLAIN = "application/octet-stream", "text/plain"
HEAD_BYTES = 64 * 1024
#: Kinds that hold no text to find, as senders declare them and as their first bytes show them.
_MEDIA = re.compile(
    r"(?:image|audio|video|font)/|application/(?:x-(?:msdownload|executable|sharedlib|elf|dosexec|mach-binary)"
    r"|vnd\.microsoft\.portable-executable)\s*(?:;|$)",
    re.IGNORECASE,
)
_MAGIC = re.compile(
    rb"RIFF[\s\S]{4}(?:WAVE|AVI |WEBP)|OggS\x00|fLaC\x00|ID3[\x02-\x04]\x00|\x1aE\xdf\xa3"
    rb"|[\s\S]{4}ftyp|\x00\x00\x01\xba|MZ[\s\S]{58}[\s\S]{2}\x00\x00|[\xcf\xce]\xfa\xed\xfe|\xfe\xed\xfa[\xce\xcf]"
)


def from_request(request: Request) -> tuple[str, str | None, Submission, int]:
    """(collection slug, mode, submission, size in bytes).

    Raises ValidationError or Problem 400, 413 `too_large` and 415 `unsupported`.
    """
    data: Any = request.data
    if isinstance(data, QueryDict):
        repeated = sorted(name for name in data if len(data.getlist(name)) > 1)
        if repeated:
            raise invalid(f"/{repeated[0]}", "Sent more than once.")
        data = data.dict()
    elif not isinstance(data, dict):
        raise Problem(400, "invalid", "The body must be a JSON object.")
    form = (request.content_type or "").startswith("multipart/")
    if form and isinstance(data.get("metadata"), str):
        try:
            data["metadata"] = load_json(data["metadata"])
        except ValueError as error:
            raise invalid("/metadata", f"metadata must be a JSON object: {error}")
    checked = SubmissionSerializer(data=data, context={"form": form})
    checked.is_valid(raise_exception=True)
    return from_values(checked.validated_data)


def from_line(line: bytes, checker: SubmissionSerializer, **defaults: str) -> tuple[str, str | None, Submission, int]:
    """The same of a line of NDJSON, with defaults for what it leaves out. `checker` serves many lines: making one takes
    longer than using it."""
    return from_values(checker.run_validation(defaults | load_line(line)))


def load_line(line: bytes) -> dict[str, Any]:
    """The object on a line of NDJSON. Raises Problem 400."""
    try:
        data = load_json(line.decode("utf-8-sig"))  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise Problem(400, "malformed_json", f"The line is not UTF-8: byte {error.start}.")
    except ValueError as error:
        raise Problem(400, "malformed_json", f"The line is not JSON: {error}")
    if not isinstance(data, dict):
        raise Problem(400, "invalid", "The line must be a JSON object.")
    return data


def from_values(values: dict[str, Any]) -> tuple[str, str | None, Submission, int]:
    """The same of a document's fields as its serializer gave them."""
    slug, mode = values.pop("collection"), values.pop("mode", None)
    upload = values.pop("file", None)
    content: BinaryIO
    if upload is None:
        raw = values.pop("text").encode()
        content, size, filename = io.BytesIO(raw), len(raw), ""
        media_type = values.pop("media_type", PLAIN)
    else:
        content, size, filename = upload.file, upload.size, upload.name or ""
        media_type = values.pop("media_type", None) or _declared(upload)
    if size > settings.MAX_DOCUMENT_BYTES:
        limit = settings.MAX_DOCUMENT_BYTES
        raise invalid("/file" if upload else "/text", f"At most {limit} bytes.", status=413, code="too_large")
    head = content.read(HEAD_BYTES)
    if upload is None:
        _must_be_text(head, media_type)
    else:
        must_hold_text(head, media_type, filename)
    return slug, mode, Submission(content=content, media_type=media_type, filename=filename, **values), size


def _declared(upload: UploadedFile) -> str:
    """The media type of a form's part with its charset; one that is no media type says nothing."""
    found = upload.content_type or GENERIC
    if upload.charset and found.lower().startswith("text/"):
        found += f"; charset={force_str(upload.charset)}"
    return found if len(found) <= MAX_MEDIA_TYPE and re.match(MEDIA_TYPE, found) else GENERIC


def _must_be_text(head: bytes, media_type: str) -> None:
    """Raises Problem 415 when a `text` is declared to be of a format that is not text, or that nobody parses."""
    if media_type == PLAIN:
        return
    try:
        found = detect(head, media_type=media_type, filename=None)[0]
    except ParseError as error:
        raise invalid("/media_type", error.detail, status=415, code="unsupported")
    declared = media_type.split(";", 1)[0].strip().lower()
    if not found.text and declared in found.media_types:
        raise invalid("/media_type", f"{found.label} is not text; send it as a file.", status=415, code="unsupported")


def must_hold_text(head: bytes, media_type: str, filename: str) -> None:
    """Raises Problem 415 for sound, video, a font or a program, where bytes and header say so.

    Whatever is less certain is accepted: its job says what was wrong, and can be retried when there is a parser.
    """
    kind = binary_kind(head) or ""
    certain = kind.endswith(("image", "executable")) or _MAGIC.match(head)
    if not certain and not (_MEDIA.match(media_type) and b"\x00" in head and byte_order_mark(head) is None):
        return
    try:
        if not detect(head, media_type=media_type, filename=filename)[0].text:
            return
    except ParseError:
        pass
    detail = (
        f"The content is {kind}, which has no parser." if kind else "Sound, video, fonts and programs have no text."
    )
    raise invalid("/file", detail, status=415, code="unsupported")
