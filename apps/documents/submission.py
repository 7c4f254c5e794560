"""`POST /documents` from the wire: JSON or multipart to a Submission."""

from __future__ import annotations

import io
import json
from typing import Any

from django.conf import settings
from django.http import QueryDict
from rest_framework.request import Request

from apps.access.problems import Problem, invalid

from .accept import Submission
from .serializers import SubmissionSerializer


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
            data["metadata"] = json.loads(data["metadata"])
        except ValueError:
            raise invalid("/metadata", "metadata must be a JSON object.")
    checked = SubmissionSerializer(data=data, context={"form": form})
    checked.is_valid(raise_exception=True)
    values = checked.validated_data
    slug, mode = values.pop("collection"), values.pop("mode", None)
    upload = values.pop("file", None)
    if upload is None:
        raw = values.pop("text").encode()
        content: Any = io.BytesIO(raw)
        size, media_type, filename = len(raw), values.pop("media_type", "text/plain"), ""
    else:
        content, size, filename = upload.file, upload.size, upload.name or ""
        media_type = values.pop("media_type", None) or upload.content_type or "application/octet-stream"
    if size > settings.MAX_DOCUMENT_BYTES:
        limit = settings.MAX_DOCUMENT_BYTES
        raise invalid("/file" if upload else "/text", f"At most {limit} bytes.", status=413, code="too_large")
    return slug, mode, Submission(content=content, media_type=media_type, filename=filename, **values), size
