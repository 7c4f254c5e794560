"""`POST /api/v1/search` with queries and fields as hostile and clumsy clients write them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from apps.documents.models import Collection
from tests.support.refusals import SEARCH, refused, send

MODES = ("hybrid", "dense", "lexical")
ODD_QUERIES = {
    "operators": "'a' & | ! <->",
    "a prefix": "pangolin:* & b",
    "no operands": "<->",
    "only punctuation": "!!! ... ???",
    "only stop words": "the and of",
    "SQL": "'); DROP TABLE documents_document; --",
    "placeholders": "%s %(vector)s {table} {0}",
    "emoji": "\U0001f642\U0001f642",
    "right to left": "שלום עולם",
    "back slashes": "\\ \\' \\\\",
    "quotes": "''' \"\"\"",
    "control characters": "\u0001 \u200b \ufffd",
    "8,000 letters": "x" * 8_000,
    "8,000 letters of two bytes": "é" * 8_000,
    "2,000 words": "ab " * 2_000,
    "1,100 different words": " ".join(f"w{number}" for number in range(1_100)),
    "a long address": "http://a.b/" + "c/" * 3_000,
    "hyphens": "a-" * 3_900,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("query", ODD_QUERIES.values(), ids=ODD_QUERIES.keys())
def test_an_odd_query_is_a_query(
    client: httpx.Client, collection: Collection, ingest: Any, mode: str, query: str
) -> None:
    ingest(collection, "Pangolins have scales.")
    response = client.post(SEARCH, json={"query": query, "mode": mode, "collections": ["docs"]})
    assert response.status_code == 200, response.text
    for hit in response.json()["results"]:
        assert hit["text"] == "Pangolins have scales." and (mode != "lexical" or hit["scores"]["dense"] is None)


def test_words_among_operators_are_found(client: httpx.Client, collection: Collection, ingest: Any) -> None:
    ingest(collection, "Pangolins have scales.")
    body = {"query": "!(pangolins <-> 'otters') & |", "mode": "lexical"}
    assert len(client.post(SEARCH, json=body).json()["results"]) == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/query"),
        *(({"query": value}, "/query") for value in (None, 5, True, [], {}, "", " \n", "\x00", "\ud800", "x" * 8_001)),
        *(({"query": "a", "k": value}, "/k") for value in (0, 201, -1, True, "5", 1.5, None, 10**400, [])),
        *(({"query": "a", "mode": value}, "/mode") for value in ("x", None, 1, [], {})),
        *(({"query": "a", "collections": value}, "/collections") for value in ([], "docs", 5, {}, ["docs"] * 101)),
        *(({"query": "a", "collections": [value]}, "/collections/0") for value in (5, None, "", "\x00", "\ud800")),
        ({"query": "a", "colour": 1}, "/colour"),
        ({"query": "a", "consistency": "hopeful"}, "/consistency"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_bad_field_is_named(client: httpx.Client, collection: Collection, body: dict, pointer: str) -> None:
    refused(send(client, json.dumps(body), SEARCH), 400, pointer=pointer)


@pytest.mark.parametrize("slugs", [["nowhere"], ["docs", "nowhere"], ["DOCS"]])
def test_an_unknown_collection_is_a_404(client: httpx.Client, collection: Collection, slugs: list[str]) -> None:
    refused(client.post(SEARCH, json={"query": "a", "collections": slugs}), 404, "unknown_collection")


def test_k_bounds_the_results(client: httpx.Client, collection: Collection, ingest: Any) -> None:
    for number in range(3):
        ingest(collection, f"Pangolin number {number}.", source_uri=f"p{number}")
    for k in (1, 2, 200):
        found = client.post(SEARCH, json={"query": "pangolin", "k": k}).json()["results"]
        assert len(found) == min(k, 3)
