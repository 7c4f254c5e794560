"""`POST /api/v1/search` on the express way (ragsite/express.py): SearchView's checks, without what words refusals."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus

from rest_framework.exceptions import ValidationError

from apps.access import replicas
from apps.access.authentication import secret_of
from apps.access.keys import Caller, recognise, recognising
from apps.access.problems import MEDIA_TYPE, Problem, as_problem, document, headers_of
from apps.access.rendering import JSONRenderer
from apps.access.serializers import load_json
from apps.access.tenancy import Unexpected
from apps.access.throttling import charge
from apps.access.views import checker

from .freshness import search_fresh, searches_first
from .serializers import SearchSerializer
from .types import SearchQuery
from .views import SearchView, embedding, query_of

logger = logging.getLogger("django.request")

PATH = "/api/v1/search"


def answer(headers: Mapping[str, str], body: bytes, request_id: str) -> tuple[int, dict[str, str], bytes] | None:
    """(status, headers, body), or None where nothing has been done and SearchView is to refuse."""
    secret = secret_of(headers.get("x-api-key", ""), headers.get("authorization", ""))
    if not secret:
        return None
    replicas.read_after(headers.get(replicas.HEADER.lower(), ""))
    try:
        query = _query(body)
        if query is None:
            return None
        if searches_first(query):
            with suppress(Unexpected), recognising(secret) as caller:
                if caller is None or SearchView.scope_needed not in caller.scopes:
                    raise Unexpected  # as if it had not been remembered
                return _answer(caller, query)
        caller = recognise(secret)
        if caller is None or SearchView.scope_needed not in caller.scopes:
            return None
        charge(caller, 1)
        return _answer(caller, query)
    except Exception as error:
        problem = as_problem(error)
        level = logging.ERROR if problem.status_code >= 500 else logging.WARNING
        logger.log(level, "%s: %s", HTTPStatus(problem.status_code).phrase, PATH)  # as Django does
        refusal = JSONRenderer().render(document(problem, request_id=request_id))
        return problem.status_code, {"Content-Type": MEDIA_TYPE} | headers_of(problem), refusal


def _answer(caller: Caller, query: SearchQuery) -> tuple[int, dict[str, str], bytes]:
    with embedding():
        found = search_fresh(tenant_id=caller.tenant_id, query=query)
    return 200, {"Content-Type": "application/json"}, JSONRenderer().render(found.as_json())


def _query(body: bytes) -> SearchQuery | None:
    """What a body asks for, None where something is wrong with it."""
    try:
        return query_of(checker(SearchSerializer).run_validation(load_json(body.decode("utf-8-sig"))))
    except (ValueError, ValidationError, Problem):
        return None
