"""Filters of a search: the whole grammar, on the exact and on the approximate path, and what hostile ones do."""

from __future__ import annotations

import io
import json
import operator
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.test import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.access import tenancy
from apps.access.problems import Problem
from apps.documents import attributes
from apps.documents.accept import Submission
from apps.documents.bulk import put_here
from apps.documents.edit import edit
from apps.documents.merge import MERGED
from apps.documents.models import Collection, Document
from apps.documents.remove import delete
from apps.retrieval import policy, statement
from apps.retrieval.filters import MAX_CONDITIONS, MAX_DEPTH, MAX_VALUES, compile_filter
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery
from tests.support.refusals import SEARCH, refused

DOCUMENTS: dict[str, dict[str, Any]] = {
    "hr/leave": {"year": 2020, "tags": ["hr", "leave"], "public": True, "owner": {"name": "Ada", "level": 3}},
    "hr/pay": {"year": 2022, "tags": ["hr"], "public": False, "owner": {"name": "Bob"}, "rate": 1.5},
    "it/vpn": {"year": "2022", "tags": [], "note": None},
    "it/100%": {"year": 2022.0, "tags": ["it", 7], 'we\'ird "key"': "x", "a": {"b": [{"c": 1}, {"c": 2}]}},
    "plain": {},
}
TENANT = uuid4()
TITLES = {"hr/leave": "Leave", "hr/pay": "Pay", "it/vpn": "VPN"}


@pytest.fixture
def filled(collection: Collection, ingest: Callable[..., Any]) -> Collection:
    for name, metadata in DOCUMENTS.items():
        ingest(
            collection, f"A lighthouse, as {name} has it.", source_uri=name, title=TITLES.get(name), metadata=metadata
        )
    return collection


def found(collection: Collection, filters: dict[str, Any], mode: str = "hybrid", **options: bool) -> set[str]:
    query = SearchQuery("lighthouse", mode=mode, filter=compile_filter(filters), **options)  # type: ignore[arg-type]
    return {hit.source_uri for hit in search(tenant_id=collection.tenant_id, query=query).hits}


CASES: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set(DOCUMENTS)),
    ({"metadata.year": 2022}, {"hr/pay", "it/100%"}),
    ({"metadata.year": {"$eq": "2022"}}, {"it/vpn"}),
    ({"metadata.year": {"$ne": 2022}}, {"hr/leave", "it/vpn", "plain"}),
    ({"metadata.year": {"$gt": 2020}}, {"hr/pay", "it/100%"}),
    ({"metadata.year": {"$gte": 2020, "$lt": 2022}}, {"hr/leave"}),
    ({"metadata.year": {"$lte": "2022"}}, {"it/vpn"}),
    ({"metadata.year": {"$in": [2020, "2022"]}}, {"hr/leave", "it/vpn"}),
    ({"metadata.year": {"$nin": [2020, "2022"]}}, {"hr/pay", "it/100%", "plain"}),
    ({"metadata.year": {"$in": []}}, set()),
    ({"metadata.year": {"$nin": []}}, set(DOCUMENTS)),
    ({"metadata.tags": "hr"}, {"hr/leave", "hr/pay"}),
    ({"metadata.tags": {"$in": ["leave", 7]}}, {"hr/leave", "it/100%"}),
    ({"metadata.tags": ["hr"]}, {"hr/pay"}),
    ({"metadata.tags": []}, {"it/vpn"}),
    ({"metadata.public": True}, {"hr/leave"}),
    ({"metadata.public": {"$ne": True}}, set(DOCUMENTS) - {"hr/leave"}),
    ({"metadata.note": None}, {"it/vpn"}),
    ({"metadata.note": {"$exists": True}}, {"it/vpn"}),
    ({"metadata.note": {"$exists": False}}, set(DOCUMENTS) - {"it/vpn"}),
    ({"metadata.owner.name": {"$prefix": "A"}}, {"hr/leave"}),
    ({"metadata.owner": {"name": "Bob"}}, {"hr/pay"}),
    ({"metadata.a.b.c": 2}, {"it/100%"}),
    ({"metadata.we'ird \"key\"": "x"}, {"it/100%"}),
    ({"metadata.rate": {"$gt": 1, "$lt": 2}}, {"hr/pay"}),
    ({"source_uri": "plain"}, {"plain"}),
    ({"source_uri": {"$prefix": "it/"}}, {"it/vpn", "it/100%"}),
    ({"source_uri": {"$prefix": "it/100%"}}, {"it/100%"}),
    ({"source_uri": {"$in": ["plain", "hr/pay"]}}, {"plain", "hr/pay"}),
    ({"source_uri": {"$nin": ["plain", "hr/pay"]}}, set(DOCUMENTS) - {"plain", "hr/pay"}),
    ({"source_uri": {"$lt": "it"}}, {"hr/leave", "hr/pay"}),
    ({"title": "VPN"}, {"it/vpn"}),
    ({"title": {"$exists": False}}, {"it/100%", "plain"}),
    ({"title": {"$gte": "M"}}, {"hr/pay", "it/vpn"}),
    ({"created_at": {"$gt": "2020-01-01T00:00:00Z"}}, set(DOCUMENTS)),
    ({"updated_at": {"$lt": "2020-01-01"}}, set()),
    ({"$or": [{"title": "Leave"}, {"metadata.year": "2022"}]}, {"hr/leave", "it/vpn"}),
    ({"$and": [{"metadata.tags": "hr"}, {"metadata.year": 2022}]}, {"hr/pay"}),
    ({"$not": {"metadata.tags": "hr"}}, {"it/vpn", "it/100%", "plain"}),
    ({"$not": {"$or": [{"title": "VPN"}, {"metadata.year": {"$exists": False}}]}}, {"hr/leave", "hr/pay", "it/100%"}),
    ({"$or": [{"title": "VPN"}, {}]}, set(DOCUMENTS)),
    ({"$not": {}}, set()),
    ({"metadata.tags": "hr", "title": "Pay"}, {"hr/pay"}),
]  # fmt: skip


@pytest.mark.parametrize("path", ["scan", "few", "index"])
def test_each_operator_on_each_path(filled: Collection, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if path == "index":
        monkeypatch.setattr(policy, "most_compared", lambda scopes, wanted: -1)
    with override_settings(EXACT_SCAN_ROWS=5_000 if path == "scan" else 0):
        for filters, expected in CASES:
            for mode in ("dense", "lexical", "hybrid"):
                assert found(filled, filters, mode) == expected, (filters, mode)


def test_one_document_by_its_id(filled: Collection) -> None:
    with tenancy.scope(filled.tenant_id):
        wanted = str(Document.objects.get(source_uri="plain").id)
    assert found(filled, {"document_id": wanted}) == {"plain"}
    assert found(filled, {"document_id": {"$in": [wanted.upper(), str(uuid4())]}}) == {"plain"}
    assert found(filled, {"document_id": {"$ne": wanted}}) == set(DOCUMENTS) - {"plain"}


NESTED: dict[str, Any] = {"title": "x"}
for _ in range(MAX_DEPTH + 1):
    NESTED = {"$not": NESTED}
BAD: list[tuple[Any, int, str]] = [
    ({"color": 1}, 400, "/filters/color"),
    ({"metadata": {"a": 1}}, 400, "/filters/metadata"),
    ({"metadata.": 1}, 400, "/filters/metadata."),
    ({"$nor": []}, 400, "/filters/$nor"),
    ({"$or": []}, 400, "/filters/$or"),
    ({"$or": {"title": "x"}}, 400, "/filters/$or"),
    ({"$and": [{"title": "x"}, 5]}, 400, "/filters/$and/1"),
    ({"metadata.a": {"$regex": ".*"}}, 400, "/filters/metadata.a/$regex"),
    ({"metadata.a/b": {"$gt": None}}, 400, "/filters/metadata.a~1b/$gt"),
    ({"metadata.a": {"$gt": True}}, 400, "/filters/metadata.a/$gt"),
    ({"metadata.a": {"$in": 5}}, 400, "/filters/metadata.a/$in"),
    ({"metadata.a": {"$in": [[1]]}}, 400, "/filters/metadata.a/$in/0"),
    ({"metadata.a": {"$exists": 1}}, 400, "/filters/metadata.a/$exists"),
    ({"metadata.a": {"$prefix": 1}}, 400, "/filters/metadata.a/$prefix"),
    ({"title": {"$gt": 5}}, 400, "/filters/title/$gt"),
    ({"title": None}, 400, "/filters/title"),
    ({"document_id": "x"}, 400, "/filters/document_id"),
    ({"document_id": {"$gt": str(uuid4())}}, 400, "/filters/document_id/$gt"),
    ({"created_at": "yesterday"}, 400, "/filters/created_at"),
    ({"created_at": {"$prefix": "2020-01-01T00:00:00Z"}}, 400, "/filters/created_at/$prefix"),
    ("title", 400, "/filters"),
    ([], 400, "/filters"),
    (NESTED, 422, "/filters" + "/$not" * (MAX_DEPTH + 1)),
    ({"$and": [{"title": str(n)} for n in range(MAX_CONDITIONS + 1)]}, 422, f"/filters/$and/{MAX_CONDITIONS}/title"),
    ({"metadata.a": {"$in": list(range(MAX_VALUES + 1))}}, 422, "/filters/metadata.a/$in"),
    ({"metadata.a": "x" * 3_000}, 422, "/filters/metadata.a"),
    ({"metadata." + ".".join("abcdefghi"): 1}, 422, "/filters/metadata." + ".".join("abcdefghi")),
]  # fmt: skip


@pytest.mark.parametrize(("filters", "status", "pointer"), BAD)
def test_what_is_wrong_is_named(
    client: httpx.Client, collection: Collection, filters: Any, status: int, pointer: str
) -> None:
    response = client.post(SEARCH, json={"query": "x", "filters": filters})
    refused(response, status, "filter_too_complex" if status == 422 else "invalid", pointer)


HOSTILE = [
    "' OR true --", '") || (true', "%(query)s", "{table}", "$", "@", "\\", '\\"', "$.a ? (@ > 0)", "like_regex", "null",
    "\u2028", "\U0001f642", "a" * 1_900,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_gets_out_of_its_place(client: httpx.Client, filled: Collection, text: str) -> None:
    filters = [{"metadata.tags": text}, {"metadata.owner.name": {"$prefix": text}}, {"title": text}]
    if "." not in text:
        filters.append({f"metadata.{text}": {"$exists": True}})
    for each in filters:
        response = client.post(SEARCH, json={"query": "lighthouse", "filters": each})
        assert response.status_code == 200 and response.json()["results"] == [], (each, response.text)


@pytest.mark.parametrize("text", ["\x00", "a\x00b"])
def test_what_postgres_cannot_hold_is_refused(client: httpx.Client, collection: Collection, text: str) -> None:
    for filters in ({"metadata.a": text}, {"title": text}, {f"metadata.{text}": 1}):
        response = client.post(SEARCH, json={"query": "x", "filters": filters})
        assert response.status_code == 400, response.text


@pytest.mark.parametrize("body", [b'{"metadata.a": 1e400}', b'{"metadata.a": NaN}', b'{"metadata.a": "\\ud800"}'])
def test_what_is_no_json_value_is_refused(client: httpx.Client, collection: Collection, body: bytes) -> None:
    content = b'{"query": "x", "filters": ' + body + b"}"
    assert client.post(SEARCH, content=content, headers={"Content-Type": "application/json"}).status_code == 400


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, -2.0]), st.text("ab'\"\\%é", max_size=2)
)
KEYS = st.sampled_from(["a", "b", "c d"])
ORDERED = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}


@st.composite
def _filters(draw: st.DrawFn, depth: int = 2) -> dict[str, Any]:
    kind = draw(st.sampled_from(["field", "field", "$and", "$or", "$not"] if depth else ["field"]))
    if kind in ("$and", "$or"):
        return {kind: draw(st.lists(_filters(depth - 1), min_size=1, max_size=3))}
    if kind == "$not":
        return {"$not": draw(_filters(depth - 1))}
    name = draw(st.sampled_from(["$eq", "$ne", "$in", "$nin", "$exists", *ORDERED]))
    if name in ("$in", "$nin"):
        operand: Any = draw(st.lists(SCALARS, max_size=3))
    elif name == "$exists":
        operand = draw(st.booleans())
    elif name in ORDERED:
        operand = draw(
            SCALARS.filter(lambda value: isinstance(value, str | int | float) and not isinstance(value, bool))
        )
    else:
        operand = draw(SCALARS)
    return {f"metadata.{draw(KEYS)}": {name: operand}}


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _holds(filters: dict[str, Any], metadata: dict[str, Any]) -> bool:
    """The grammar once more, in Python."""
    for name, value in filters.items():
        if name in ("$and", "$or"):
            if not (all if name == "$and" else any)(_holds(each, metadata) for each in value):
                return False
        elif name == "$not":
            if _holds(value, metadata):
                return False
        else:
            key = name.removeprefix("metadata.")
            there, one = key in metadata, metadata.get(key)
            [(verb, operand)] = value.items()
            if verb == "$exists":
                right = there == operand
            elif verb in ("$eq", "$ne"):
                right = (there and _same(one, operand)) == (verb == "$eq")
            elif verb in ("$in", "$nin"):
                right = (there and any(_same(one, each) for each in operand)) == (verb == "$in")
            else:
                kinds = [
                    str if isinstance(each, str) else float if _is_number(each) else None for each in (one, operand)
                ]
                right = there and kinds[0] is kinds[1] is not None and ORDERED[verb](one, operand)
            if not right:
                return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@pytest.fixture(scope="module")
def random_metadata(database: None) -> Callable[[dict[str, Any], list[dict[str, Any]]], list[tuple[bool, bool]]]:
    """holds(filters, list of metadata): of each, does the filter hold, and do its terms find it? As Postgres says."""
    from django.db import connection

    def holds(filters: dict[str, Any], values: list[dict[str, Any]]) -> list[tuple[bool, bool]]:
        compiled = compile_filter(filters)
        assert compiled is not None
        parameters = {"values": [json.dumps(each) for each in values], **compiled.parameters}
        parameters["terms"] = [attributes.tsvector(TENANT, each) for each in values]
        parameters["asked"] = attributes.tsquery(TENANT, compiled.question) if compiled.question else None
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {compiled.sql}, coalesce(terms::tsvector @@ %(asked)s::tsquery, true)"
                " FROM unnest(%(values)s::text[], %(terms)s::text[]) WITH ORDINALITY AS v (value, terms, number),"
                " LATERAL (SELECT value::jsonb AS metadata) d ORDER BY number",
                parameters,
            )
            return cursor.fetchall()

    return holds


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters=_filters(), values=st.lists(st.dictionaries(KEYS, SCALARS, max_size=3), min_size=1, max_size=20))
def test_any_filter_means_what_the_grammar_says(
    random_metadata: Callable[..., list[tuple[bool, bool]]], filters: dict[str, Any], values: list[dict[str, Any]]
) -> None:
    assert [right for right, _ in random_metadata(filters, values)] == [_holds(filters, each) for each in values]


NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63), st.integers(-9, 9))
WORDS = st.text("ab'\"\\é\U0001f600", max_size=3)
NESTED_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=2)),
    max_leaves=6,
)


@st.composite
def _found_by_terms(draw: st.DrawFn) -> dict[str, Any]:
    bounds = draw(st.sampled_from([NUMBERS, WORDS]))
    conditions = st.fixed_dictionaries(
        {},
        optional={"$gt": bounds, "$gte": bounds, "$lt": bounds, "$lte": bounds, "$exists": st.just(True)}
        | {"$eq": st.one_of(NUMBERS, WORDS), "$in": st.lists(WORDS, min_size=1, max_size=2), "$prefix": WORDS},
    ).filter(bool)
    path = ".".join(["metadata", *draw(st.lists(KEYS, min_size=1, max_size=2))])
    return {path: draw(conditions)}


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    filters=_found_by_terms(),
    values=st.lists(st.dictionaries(KEYS, NESTED_VALUES, max_size=3), min_size=1, max_size=20),
)
def test_the_terms_find_all_that_pass(
    random_metadata: Callable[..., list[tuple[bool, bool]]], filters: dict[str, Any], values: list[dict[str, Any]]
) -> None:
    for metadata, (passes, is_found) in zip(values, random_metadata(filters, values), strict=True):
        assert is_found or not passes, metadata


@pytest.mark.parametrize(
    ("filters", "found", "lost"),
    [
        ({"metadata.a": 3}, [{"a": 3.0}, {"a": [1, 3]}], [{"a": 4}, {"a": "3"}, {"b": 3}]),
        ({"metadata.a": {"$in": ["x", "y"]}}, [{"a": "x"}, {"a": ["y"]}], [{"a": "xy"}, {}]),
        ({"metadata.a": {"$gte": 100, "$lt": 150}}, [{"a": 100}, {"a": 149.5}], [{"a": 99}, {"a": 151}, {"a": "120"}]),
        ({"metadata.a": {"$lt": -0.5}}, [{"a": -3}], [{"a": 0}, {"a": 1e300}]),
        ({"metadata.a": {"$gt": "2025-03", "$lt": "2025-05"}}, [{"a": "2025-04"}], [{"a": "2025-06"}, {"a": "2024"}]),
        ({"metadata.a": {"$prefix": "hr/"}}, [{"a": "hr/pay"}], [{"a": "it/"}]),
        ({"metadata.a.b": {"$exists": True}}, [{"a": {"b": None}}, {"a": [{"b": []}]}], [{"a": 1}, {"b": 1}]),
        ({"$or": [{"metadata.a": 1}, {"metadata.b": 2}]}, [{"a": 1}, {"b": 2}], [{"a": 2, "b": 1}]),
        ({"metadata.a": 1, "metadata.b": 2, "title": "x"}, [{"a": 1, "b": 2}], [{"a": 1}, {"b": 2}]),
        ({"metadata.many": {"$eq": 1}}, [{"many": 1}, {"others": list(range(2_000))}], [{"others": [1]}]),
    ],
)  # fmt: skip
def test_the_terms_leave_the_others_out(
    random_metadata: Callable[..., list[tuple[bool, bool]]],
    filters: dict[str, Any],
    found: list[dict[str, Any]],
    lost: list[dict[str, Any]],
) -> None:
    compiled = compile_filter({name: given for name, given in filters.items() if name != "title"})
    assert compiled is not None and compiled.question == compile_filter(filters).question  # type: ignore[union-attr]
    told = random_metadata({name: given for name, given in filters.items() if name != "title"}, found + lost)
    assert [is_found for _, is_found in told] == [True] * len(found) + [False] * len(lost)


@pytest.mark.parametrize(
    "filters",
    [
        *({"metadata.a": {"$ne": 1}}, {"$not": {"metadata.a": 1}}, {"title": "x"}, {"metadata.a": [1]}),
        *({"$or": [{"metadata.a": 1}, {"title": "x"}]}, {"metadata.a": {"$exists": False}}),
    ],
)
def test_what_terms_cannot_tell_is_not_asked(filters: dict[str, Any]) -> None:
    compiled = compile_filter(filters)
    assert compiled is not None and compiled.question is None


def test_every_write_keeps_the_terms_with_the_metadata(
    collection: Collection, ingest: Callable[..., Any], put: Callable[..., Any]
) -> None:
    def terms(source_uri: str = "doc") -> tuple[dict[str, Any], str]:
        with tenancy.scope(collection.tenant_id):
            document = Document.objects.get(source_uri=source_uri)
        return document.metadata, document.attributes

    def told(metadata: dict[str, Any]) -> tuple[dict[str, Any], str]:
        return metadata, attributes.tsvector(collection.tenant_id, metadata)

    ingest(collection, "One text.", metadata={"a": ["it's", 2]})
    assert terms() == told({"a": ["it's", 2]})
    put(collection, "One text.", metadata={"a": 3})  # the same content
    assert terms() == told({"a": 3})
    ingest(collection, "Another text.", metadata={"b": None})
    assert terms() == told({"b": None})
    with tenancy.scope(collection.tenant_id):
        document_id = Document.objects.get(source_uri="doc").id
        edit(document_id, {"metadata": {"c": True}})
    assert terms() == told({"c": True})
    submission = Submission(io.BytesIO(b"Merged."), "text/plain", "", source_uri="m", metadata={"d": "x\\y"})
    assert put_here(collection=collection, submissions=[submission]) == [MERGED]
    assert terms("m") == told({"d": "x\\y"})
    delete(tenant_id=collection.tenant_id, document_id=document_id, erase=True)
    with tenancy.scope(collection.tenant_id):
        assert not Document.objects.get(id=document_id).attributes


@pytest.mark.parametrize("partial", [False, True], ids=["whole", "partial"])
def test_a_search_that_takes_too_long_is_stopped(
    filled: Collection, monkeypatch: pytest.MonkeyPatch, partial: bool
) -> None:
    monkeypatch.setitem(statement.QUERIES, "holds", " AND pg_sleep(30)::text || {row}.document_id IS NOT NULL")
    with override_settings(SEARCH_TIMEOUT_SECONDS=0.2), pytest.raises(Problem) as stopped:
        found(filled, {"title": "x"}, partial=partial)
    assert (stopped.value.status_code, stopped.value.code) == (504, "search_timeout")
