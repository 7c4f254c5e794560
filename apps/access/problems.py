"""Errors as clients see them: RFC 9457 problem documents, and OpenAI's shape under /v1/.

`Problem` is the one exception a view or service raises for a refusal; everything else that can go wrong in a
request becomes one here. A client never sees a traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from psycopg.errors import ReadOnlySqlTransaction
from psycopg_pool import PoolTimeout
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings

from . import tenancy
from .cutoff import CutOff
from .rendering import JSONRenderer

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
MAX_ERRORS, MAX_DETAIL = 100, 1_000


class Problem(exceptions.APIException):
    """A refusal: HTTP status, snake_case code, one sentence for a person.

    errors: [{"pointer": "/metadata/tags/0", "detail": ...}] per bad field. extra: more members of the document,
    such as `current_version`. retry_after: seconds, sent as the Retry-After header.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: list[dict[str, str]] | None = None,
        retry_after: int | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail, code)
        self.status_code = status
        self.code = code
        self.sentence = detail
        self.errors = errors or []
        self.extra = extra
        self.retry_after = retry_after
        if status == 503 and retry_after is None:
            self.retry_after = RETRY_AFTER_SECONDS


def invalid(pointer: str, detail: str, *, status: int = 400, code: str = "invalid") -> Problem:
    """A problem with one bad field."""
    return Problem(status, code, detail, errors=[{"pointer": pointer, "detail": detail}])


def document(problem: Problem, *, request_id: str = "") -> dict[str, Any]:
    """The RFC 9457 members of a problem."""
    body: dict[str, Any] = {
        "type": f"urn:ragsite:problem:{problem.code}",
        "title": HTTPStatus(problem.status_code).phrase,
        "status": problem.status_code,
        "detail": _safe(problem.sentence),
        "code": problem.code,
        "request_id": request_id,
    }
    if problem.errors:
        body["errors"] = [{name: _safe(text) for name, text in error.items()} for error in problem.errors[:MAX_ERRORS]]
    return body | problem.extra


def _safe(text: str) -> str:
    """What quotes a client must not be longer than it has to, nor hold a lone surrogate: that could not be sent."""
    return text[:MAX_DETAIL].encode("utf-8", "backslashreplace").decode()


def openai_document(problem: Problem) -> dict[str, Any]:
    """The same refusal as OpenAI's clients expect it."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(problem.status_code, "server_error" if problem.status_code >= 500 else "invalid_request_error")
    param = problem.errors[0]["pointer"].strip("/").replace("/", ".") or None if problem.errors else None
    error = {"message": _safe(problem.sentence), "type": kind, "param": param and _safe(param), "code": problem.code}
    return {"error": error}


def headers_of(problem: Problem) -> dict[str, str]:
    """What a refusal says in headers of its own."""
    return {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """Django REST framework's hook: any exception of a view as a problem document."""
    request = context["request"]
    # Whatever the view itself would have answered with, and also where it has nothing that the client takes.
    request.accepted_renderer, request.accepted_media_type = JSONRenderer(), JSONRenderer.media_type
    problem = as_problem(error)
    view = context.get("view")
    headers = headers_of(problem)
    if problem.status_code == 401 and view is not None:
        headers["WWW-Authenticate"] = view.get_authenticate_header(request)
    if request.path.startswith("/v1/"):
        return Response(openai_document(problem), status=problem.status_code, headers=headers)
    body = document(problem, request_id=getattr(request, "request_id", ""))
    return Response(body, status=problem.status_code, headers=headers, content_type=MEDIA_TYPE)


def page(request: HttpRequest, problem: Problem) -> JsonResponse:
    """A problem outside of a REST view (unknown URL, failure in a middleware)."""
    headers = headers_of(problem)
    if request.path.startswith("/v1/"):
        return JsonResponse(openai_document(problem), status=problem.status_code, headers=headers)
    body = document(problem, request_id=getattr(request, "request_id", ""))
    return JsonResponse(body, status=problem.status_code, headers=headers, content_type=MEDIA_TYPE)


def as_problem(error: Exception) -> Problem:
    """The problem that an exception stands for; what nobody foresaw is logged and becomes a 500 without details."""
    match error:
        case Problem():
            return error
        case exceptions.ValidationError():
            found = [{"pointer": pointer, "detail": detail} for pointer, detail in _pointers(error.detail, "")]
            return Problem(400, "invalid", found[0]["detail"] if found else "Invalid input.", errors=found)
        case DjangoValidationError():
            return Problem(400, "invalid", " ".join(error.messages))
        case exceptions.ParseError():
            return Problem(400, "malformed_json", str(error.detail))
        case exceptions.Throttled():
            wait = int(getattr(error, "wait", None) or 1)
            return Problem(429, "too_many_requests", f"Too many requests; retry in {wait} s.", retry_after=wait)
        case exceptions.NotAuthenticated():
            return Problem(401, "not_authenticated", "Send an API key: Authorization: Bearer <key>, or X-API-Key.")
        case exceptions.APIException():
            code = error.get_codes()
            return Problem(error.status_code, code if isinstance(code, str) else "error", str(error.detail))
        case Http404():
            return Problem(404, "not_found", "There is no such thing here.")
        case PermissionDenied():
            return Problem(403, "forbidden", "Not allowed.")
        case RequestDataTooBig():
            limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
            return Problem(413, "too_large", f"A request body has at most {limit} bytes.")
        case BadRequest() | SuspiciousOperation():  # too many fields, an impossible Host
            return Problem(400, "bad_request", "The request cannot be understood.")
        case OperationalError() if tenancy.is_conflict(error):
            detail = "Other requests are changing the same thing; nothing was changed. Try again."
            return Problem(503, "busy", detail, retry_after=1)
        case DatabaseError() if isinstance(error.__cause__, ReadOnlySqlTransaction):
            detail = "Nothing can be changed while everything moves to another database; searches go on. Try again."
            return Problem(503, "read_only", detail, retry_after=30)
        case CutOff():
            logger.warning("a node of the cluster hangs: %s", error)
            detail = "A part of the database does not answer. Before you repeat a change, look whether it was made."
            return Problem(503, "shards_unavailable", detail)
        case DatabaseError() if tenancy.lost_a_node(error):
            logger.warning("a node of the cluster is away: %s", error)
            detail = "A part of the database cannot be reached right now; nothing was changed."
            return Problem(503, "shards_unavailable", detail)
        case PoolTimeout() | InterfaceError() | OperationalError():
            logger.warning("database unavailable: %s", error)
            return Problem(
                503, "database_unavailable", "The database cannot be reached right now; nothing was changed."
            )
    logger.error("unexpected error", exc_info=error)
    return Problem(500, "internal", "Something went wrong on our side. The request id finds it in the log.")


def _pointers(detail: Any, pointer: str) -> Iterator[tuple[str, str]]:
    """(JSON pointer, message) of each leaf in a serializer's error detail."""
    if isinstance(detail, dict):
        for key, value in detail.items():
            here = (
                "" if key == api_settings.NON_FIELD_ERRORS_KEY else "/" + str(key).replace("~", "~0").replace("/", "~1")
            )
            yield from _pointers(value, pointer + here)
    elif isinstance(detail, list):
        for index, value in enumerate(detail):
            if isinstance(value, dict | list):
                if value:
                    yield from _pointers(value, f"{pointer}/{index}")
            else:
                yield pointer, str(value)
    else:
        yield pointer, str(detail)
