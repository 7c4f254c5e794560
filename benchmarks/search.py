"""Search over HTTP with the query's embedding cached, beside the same SQL from psycopg; one client, in turns.

Each goes first every other round, because the second finds the data in the processor's caches. The client is the
standard library's: httpx alone takes half a millisecond per request.
"""

from __future__ import annotations

import http.client
import io
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from pathlib import Path

import psycopg
from django.conf import settings

from apps.access import tenancy
from apps.documents import embed, prepare
from apps.documents.accept import Submission, accept
from apps.retrieval.query_vectors import new_vector
from apps.retrieval.scopes import scopes_of
from apps.retrieval.statement import choose, compose, index_settings
from apps.retrieval.types import SearchQuery
from tests.support.processes import Server

from .corpus import passages, queries
from .stack import Clock, house, milliseconds

DOCUMENTS, QUERIES, ROUNDS = 1_000, 40, 6


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    collection, key = house("search")
    for number, text in enumerate(passages(DOCUMENTS)):
        submission = Submission(content=io.BytesIO(text.encode()), media_type="text/plain", filename=f"p{number}")
        with tenancy.scope(collection.tenant_id):
            accept(collection=collection, submission=submission, wake=False)
    prepare.drain()
    embed.drain()
    asked = queries(QUERIES)
    with tenancy.scope(collection.tenant_id):
        scopes = scopes_of(None)
    vectors = {text: new_vector(tenant_id=collection.tenant_id, space=scopes[0].space, query=text) for text in asked}
    modes = ("dense", "lexical", "hybrid")
    composed = {}
    with tenancy.scope(collection.tenant_id):
        for text, mode in product(asked, modes):
            query = SearchQuery(text, mode=mode)
            composed[text, mode] = compose(scopes, query, vectors[text], choose(scopes, query))
    set_local = {mode: index_settings(scopes, SearchQuery("", mode=mode)).items() for mode in modes}
    settings_sql = {
        mode: "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in wanted) for mode, wanted in set_local.items()
    }
    with (
        Server(data) as server,
        closing(http.client.HTTPConnection("127.0.0.1", server.port)) as client,
        psycopg.connect(_app_dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor) as raw,
    ):

        def over_http(text: str, mode: str) -> None:
            body = json.dumps({"query": text, "mode": mode})
            client.request("POST", "/api/v1/search", body, {"X-API-Key": key, "Content-Type": "application/json"})
            response = client.getresponse().read()
            assert json.loads(response)["results"], response

        def bare(text: str, mode: str) -> None:
            statement, parameters = composed[text, mode]
            with raw.transaction():
                raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                raw.execute(f"SET LOCAL ragsite.tenant = '{collection.tenant_id}'; {settings_sql[mode]}")
                assert raw.execute(statement, parameters).fetchall()

        for mode in modes:
            seconds: dict[Callable[[str, str], None], list[float]] = {over_http: [], bare: []}
            for number in range(ROUNDS):
                for text in asked:
                    for ask in (over_http, bare) if number % 2 else (bare, over_http):
                        with Clock() as clock:
                            ask(text, mode)
                        seconds[ask].append(clock.seconds)
            extra = (statistics.median(seconds[over_http]) - statistics.median(seconds[bare])) * 1000
            chunks = sum(found.chunks for found in scopes)
            yield (
                f"{mode}, {chunks} chunks: HTTP over the same SQL",
                "p50 <= SQL + 5 ms",
                f"+{extra:.1f} ms (HTTP {milliseconds(seconds[over_http])}; SQL {milliseconds(seconds[bare])})",
            )


def _app_dsn() -> str:
    database = settings.DATABASES["default"]
    return psycopg.conninfo.make_conninfo(
        host=database["HOST"],
        port=database["PORT"],
        user=database["USER"],
        password=database["PASSWORD"],
        dbname=database["NAME"],
    )
