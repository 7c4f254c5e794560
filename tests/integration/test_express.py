"""A search answers the same on the express way and on the long one, and whatever is unusual takes the long one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.db import connection
from django.test import override_settings

from apps.access import keys, tenancy
from apps.access.models import Tenant
from apps.documents.models import Collection
from apps.retrieval.express import answer
from ragsite import express
from tests.support.processes import Server

JSON = {"content-type": "application/json", "accept": "*/*"}
LONG = {"content-type": "application/json", "accept": "application/*"}  # is unusual, and means the same
OWN = ("date", "server", "content-length", "x-request-id")


def _scope(**changed: Any) -> dict[str, Any]:
    headers = {"host": "localhost:8000", **JSON} | changed.pop("headers", {})
    scope = {"type": "http", "method": "POST", "path": "/api/v1/search", "query_string": b"", "scheme": "http"}
    return scope | {"headers": [(name.encode(), value.encode()) for name, value in headers.items()]} | changed


def test_a_usual_search_may_go_the_express_way() -> None:
    assert express.headers_of(_scope()) == {"host": "localhost:8000", **JSON}
    for headers in ({"content-type": "application/json; charset=utf-8"}, {"accept": "application/json"}):
        assert express.headers_of(_scope(headers=headers))


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "GET"},
        {"path": "/api/v1/search/batch"},
        {"path": "/api/v1/search/"},
        {"query_string": b"a=1"},
        {"headers": {"content-type": "text/plain"}},
        {"headers": {"content-type": ""}},
        {"headers": {"accept": "text/html"}},
        {"headers": {"accept": ""}},
        {"headers": {"x-requested-with": "XMLHttpRequest"}},
        {"headers": {"content-encoding": "gzip"}},
        {"headers": {"host": "bad host"}},
        {"headers": {"host": ""}},
    ],
)
def test_whatever_is_unusual_takes_the_long_way(changed: dict[str, Any]) -> None:
    assert express.headers_of(_scope(**changed)) is None


def test_so_do_a_header_that_stands_twice_and_a_host_that_is_not_ours() -> None:
    twice = _scope()
    twice["headers"].append((b"host", b"localhost"))
    assert express.headers_of(twice) is None
    with override_settings(ALLOWED_HOSTS=["rag.example.org"]):
        assert express.headers_of(_scope()) is None
        assert express.headers_of(_scope(headers={"host": "rag.example.org"}))


def _both(url: str, body: bytes, key: str | None) -> tuple[httpx.Response, httpx.Response]:
    own = {} if key is None else {"Authorization": f"Bearer {key}"}
    express_way, long_way = (
        httpx.post(f"{url}/api/v1/search", content=body, headers=own | way | {"X-Request-ID": "the-same"}, timeout=30)
        for way in (JSON, LONG)
    )
    return express_way, long_way


def _told(response: httpx.Response) -> dict[str, Any]:
    body = json.loads(re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", "then", response.text))
    for name in ("timings", "cached"):
        body.pop(name, None)
    return body


@pytest.mark.parametrize(
    "body",
    [
        {"query": "pangolin scales"},
        {"query": "pangolin scales", "mode": "dense", "k": 3},
        {"query": "pangolin", "mode": "lexical", "filters": {"metadata.year": 2020}, "consistency": "strong"},
        {"query": "pangolin", "collections": ["nope"]},
        {"query": "pangolin", "rerank": True},
        {"query": "pangolin", "filters": {"metadata.year": {"$gte": 2019, "$lt": 2021}}},
        {"query": "pangolin", "as_of": "2999-01-01T00:00:00Z"},
        {"query": "pangolin", "as_of": "2020-01-01T00:00:00"},
        {"query": "pangolin", "min_versions": {"00000000-0000-0000-0000-000000000001": 1}},
        {"query": ""},
        {"query": 7, "k": 0},
        {"query": "pangolin", "unknown": 1},
        ["not an object"],
        b"{",
        b"\xff",
        b'{"query": "a", "query": "b"}',
        b'{"query": "\\u0000"}',
        b"",
    ],
    ids=lambda body: repr(body)[:40],
)
def test_both_ways_answer_the_same(
    server: str, api_key: str, collection: Collection, ingest: Any, body: dict[str, Any] | bytes
) -> None:
    ingest(collection, "Pangolins have scales.", metadata={"year": 2020})
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    short, long = _both(server, sent, api_key)
    assert short.status_code == long.status_code and _told(short) == _told(long)
    assert short.status_code != 200 or short.json()["results"]
    assert {name: value for name, value in short.headers.items() if name not in OWN} == {
        name: value for name, value in long.headers.items() if name not in OWN
    }
    assert short.headers["x-request-id"] == "the-same" and int(short.headers["content-length"]) == len(short.content)


@pytest.mark.parametrize("kind", ["none", "unknown", "revoked", "scopeless"])
def test_a_key_that_may_not_search_is_refused_on_both(
    server: str, tenant: Tenant, make_key: Callable[..., str], kind: str
) -> None:
    key: str | None = {"none": None, "unknown": "rs_unknown"}.get(kind)
    if kind == "revoked":
        made, key = keys.create_key(tenant_id=tenant.id, name="gone", scopes=["read"])
        assert _both(server, b'{"query": "pangolin"}', key)[0].status_code == 200
        with tenancy.scope(tenant.id):
            keys.revoke_key(key=made)
    if kind == "scopeless":
        key = keys.create_key(tenant_id=tenant.id, name="writer", scopes=["write"])[1]
    short, long = _both(server, b'{"query": "pangolin"}', key)
    assert short.status_code == long.status_code == (403 if kind == "scopeless" else 401)
    assert short.json() == long.json() and short.headers.get("www-authenticate") == long.headers.get("www-authenticate")


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"revoked_at": "now()"}, 401),
        ({"expires_at": "now() - interval '1 second'"}, 401),
        ({"scopes": "ARRAY['write']"}, 403),
        ({"requests_per_minute": "1"}, 429),
    ],
    ids=str,
)
@pytest.mark.parametrize("collections", [["docs"], ["nope"]], ids=str)
def test_a_key_is_what_it_is_now(
    server: str, tenant: Tenant, collection: Collection, changed: dict[str, str], status: int, collections: list[str]
) -> None:
    """Whoever it was when it came last; and a refused one does not hear what there is."""
    made, key = keys.create_key(tenant_id=tenant.id, name="changing", scopes=["read"])

    def ask() -> int:
        own = {"Authorization": f"Bearer {key}"}
        asked = {"query": "pangolin", "collections": collections}
        return httpx.post(f"{server}/api/v1/search", json=asked, headers=own, timeout=30).status_code

    allowed = 200 if collections == ["docs"] else 404
    assert [ask() for _ in range(3)] == [allowed] * 3
    for column, value in changed.items():
        with tenancy.scope(tenant.id), connection.cursor() as cursor:
            cursor.execute(f"UPDATE access_apikey SET {column} = {value} WHERE id = %s", [made.id])
    answers = [ask() for _ in range(4)]
    assert answers.count(status) >= (2 if status == 429 else 4)  # one a minute, and a minute may end in between


def test_a_remembered_key_is_looked_up_with_what_it_asks_for(
    tenant: Tenant, api_key: str, collection: Collection, ingest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round trip less: in the search's own transaction."""
    ingest(collection, "Pangolins have scales.")
    search = {"query": "pangolin", "mode": "lexical"}

    def lookups() -> int:
        looked_up: list[str] = []
        monkeypatch.setattr(
            "apps.retrieval.express.recognise", lambda key: looked_up.append(key) or keys.recognise(key)
        )
        found = answer({"x-api-key": api_key}, json.dumps(search).encode(), "")
        assert found is not None and found[0] == 200 and json.loads(found[2])["results"]
        return len(looked_up)

    keys._recent.drop(keys._digest(api_key))
    assert lookups() == 1
    if not tenancy.is_clustered(connection):
        assert lookups() == 0
        search |= {"consistency": "strong"}
        assert lookups() == 1, "what may write is not begun before the key is known"


def test_a_large_body_takes_the_long_way(server: str, api_key: str, collection: Collection) -> None:
    """Nobody reads it before it is known whose it is."""
    body = json.dumps({"query": "pangolin", "unknown": "x" * express.MOST_BYTES}).encode()
    assert httpx.post(f"{server}/api/v1/search", content=body, headers=JSON, timeout=30).status_code == 401
    short, long = _both(server, body, api_key)
    assert short.status_code == 400 and short.json() == long.json()


def test_a_refusal_is_in_the_log(web: Server, api_key: str, collection: Collection) -> None:
    own = {"Authorization": f"Bearer {api_key}", "X-Request-ID": "find-me-in-the-log"}
    body = {"query": "pangolin", "collections": ["nope"]}
    assert httpx.post(f"{web.url}/api/v1/search", json=body, headers=own, timeout=30).status_code == 404
    line = next(line for line in web.running.log.read_text().splitlines() if "find-me-in-the-log" in line)
    assert "WARNING django.request" in line and "Not Found: /api/v1/search" in line


def test_each_request_counts_once_towards_the_quota(server: str, tenant: Tenant, collection: Collection) -> None:
    key = keys.create_key(tenant_id=tenant.id, name="slow", scopes=["read"], requests_per_minute=4)[1]
    bodies = [{"query": "pangolin"}, {"query": "pangolin", "collections": ["nope"]}, {"query": ""}]
    for _ in range(2):  # a minute may end in between
        statuses = [
            httpx.post(
                f"{server}/api/v1/search", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=30
            ).status_code
            for body in [*bodies, bodies[0], bodies[0]]
        ]
        if statuses[-1] == 429:
            break
    assert statuses == [200, 404, 400, 200, 429]


def test_what_went_the_express_way_is_in_the_metrics(
    web: Server, tenant: Tenant, make_key: Callable[..., str], collection: Collection
) -> None:
    key = make_key(tenant, "read", "admin")
    labels = 'method="POST",status="200",view="apps.retrieval.views.SearchView"'
    name = f"django_http_responses_total_by_status_view_method_total{{{labels}}}"
    with web.client(key) as client:
        before = _counted(client, name)
        for _ in range(3):
            assert client.post("/api/v1/search", json={"query": "pangolin"}).status_code == 200
        assert _counted(client, name) == before + 3


def _counted(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_many_at_once_get_their_own_answers(web: Server, api_key: str, collection: Collection, ingest: Any) -> None:
    animals = ["pangolin", "ostrich", "badger", "lynx", "heron", "otter"]
    for animal in animals:
        ingest(collection, f"The {animal} is an animal.", source_uri=animal)

    def ask(number: int) -> None:
        animal = animals[number % len(animals)]
        with web.client(api_key) as client:
            found = client.post("/api/v1/search", json={"query": animal, "mode": "lexical", "k": 1})
        assert found.json()["results"], found.text
        assert animal in found.json()["results"][0]["text"]

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(ask, range(120)))
