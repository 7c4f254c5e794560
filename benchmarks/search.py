"""Search over HTTP with the query's embedding cached, beside the same SQL from psycopg; interleaved, one client."""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
from django.conf import settings

from apps.access import tenancy
from apps.documents import embed, prepare
from apps.documents.accept import Submission, accept
from apps.retrieval.query_vectors import new_vector
from apps.retrieval.search import compose, index_settings, scopes_of
from apps.retrieval.types import SearchQuery
from tests.support.processes import Server

from .corpus import passages, queries
from .stack import Clock, house, milliseconds

DOCUMENTS, QUERIES, ROUNDS = 1_000, 40, 5


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    collection, key = house("search")
    for number, text in enumerate(passages(DOCUMENTS)):
        submission = Submission(content=io.BytesIO(text.encode()), media_type="text/plain", filename=f"p{number}")
        accept(tenant_id=collection.tenant_id, collection=collection, submission=submission, wake=False)
    prepare.drain()
    embed.drain()
    asked = queries(QUERIES)
    with tenancy.scope(collection.tenant_id):
        scopes = scopes_of(None)
    vectors = {text: new_vector(tenant_id=collection.tenant_id, space=scopes[0].space, query=text) for text in asked}
    with (
        Server(data) as server,
        httpx.Client(base_url=server.url, headers={"X-API-Key": key}) as client,
        psycopg.connect(_app_dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor) as raw,
    ):
        for mode in ("dense", "lexical", "hybrid"):
            over_http: list[float] = []
            bare: list[float] = []
            for _ in range(ROUNDS):
                for text in asked:
                    with Clock() as clock:
                        response = client.post("/api/v1/search", json={"query": text, "mode": mode})
                    assert response.json()["results"], response.text
                    over_http.append(clock.seconds)
                    statement, parameters = compose(scopes, SearchQuery(text, mode=mode), vectors[text])
                    settings_sql = "; ".join(index_settings(scopes[0].space, parameters["candidates"]))
                    with Clock() as clock, raw.transaction():
                        raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                        raw.execute(f"SET LOCAL ragsite.tenant = '{collection.tenant_id}'; {settings_sql}")
                        assert raw.execute(statement, parameters).fetchall()
                    bare.append(clock.seconds)
            extra = (statistics.median(over_http) - statistics.median(bare)) * 1000
            chunks = sum(found.chunks for found in scopes)
            yield (
                f"{mode}, {chunks} chunks: HTTP over the same SQL",
                "p50 <= SQL + 5 ms",
                f"+{extra:.1f} ms (HTTP {milliseconds(over_http)}; SQL {milliseconds(bare)})",
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
