"""Request ids: accepted or made, echoed, and in every log line."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from uuid import uuid4

from django.http import HttpRequest, HttpResponseBase

from apps.access import correlation

_ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{1,64}")


def begin(offered: str) -> str:
    """The id of a request that begins here: the client's, when it is harmless, or a new one. It stays for the rest of
    the request's context: Django logs refusals after its middlewares."""
    request_id = offered if _ACCEPTABLE.fullmatch(offered) else str(uuid4())
    correlation.current.set(request_id)
    return request_id


class RequestMiddleware:
    """Takes a client's X-Request-ID when it is harmless, makes one otherwise, and sends it back."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request_id = begin(request.headers.get("X-Request-ID", ""))
        request.request_id = request_id  # type: ignore[attr-defined]
        response = self.get_response(request)
        response["X-Request-ID"] = request_id
        return response


class RequestIdFilter(logging.Filter):
    """Puts the current request's or query's id on each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = correlation.current.get()
        return True
