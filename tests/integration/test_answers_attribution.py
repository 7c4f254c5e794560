"""`attribution: after`: the model does not cite; its sentences are cited when they are written."""

from __future__ import annotations

import json

import httpx
import pytest

from apps.documents.models import Collection
from tests.support.asking import ask, events
from tests.support.fake_llm import FakeServer

CITED = (
    "The backups run every night at 02:30 UTC [1]. They are kept for 35 days [1]. They cost 99 euros.",
    "The backups run every night at 02:30 UTC [1].",
)


def test_sentences_are_cited_when_they_are_written(reader: httpx.Client, guide: Collection, llm: FakeServer) -> None:
    body = ask(reader, "When do backups run? script:plain", attribution="after")
    assert body["answer"] == CITED[0]
    assert [(one["supported"], one["citations"]) for one in body["sentences"]] == [
        (True, [1]),
        (True, [1]),
        (False, []),
    ]
    assert body["grounded"] == pytest.approx(2 / 3, abs=1e-4)
    system = llm.requests[-1]["messages"][0]["content"]
    assert "Write no numbers in square brackets" in system
    assert "like [1] or [2][3]" not in system
    assert reader.get(f"/api/v1/answers/{body['id']}/verify").json()["verified"]


def test_a_stream_gives_whole_sentences(reader: httpx.Client, guide: Collection) -> None:
    body = {"question": "When do backups run? script:plain", "attribution": "after", "stream": True}
    with reader.stream("POST", "/api/v1/answers", json=body) as response:
        found = events(response.iter_lines())
    deltas = [data["delta"] for name, data in found if name == "message"]
    assert "".join(deltas) == found[-1][1]["answer"] == CITED[0]


def test_markers_that_the_model_writes_all_the_same_are_not_believed(reader: httpx.Client, guide: Collection) -> None:
    body = ask(reader, "When do backups run? script:bogus", attribution="after")
    assert "97" not in body["answer"]
    assert body["answer"].startswith("Backups run every night at 02:30 UTC")


def test_strings_of_json_are_cited_too(reader: httpx.Client, guide: Collection) -> None:
    body = ask(reader, "When do backups run? script:json", attribution="after", response_format={"type": "json_object"})
    (citation,) = [one for one in body["citations"] if "02:30" in one["quote"]]
    assert json.loads(body["answer"])["when"] == f"Backups run every night at 02:30 UTC [{citation['marker']}]."


def test_a_replay_cites_as_the_answer_did(reader: httpx.Client, guide: Collection) -> None:
    body = ask(reader, "When do backups run? script:plain", attribution="after")
    again = reader.post(f"/api/v1/answers/{body['id']}/replay", json={}).json()
    assert again["difference"]["same"]
    inline = ask(reader, "When do backups run? script:plain")
    assert inline["citations"] == [], "the other way is another answer"


def test_quotes_cite_as_ever(client: httpx.Client, guide: Collection) -> None:
    assert ask(client, attribution="after")["answer"] == ask(client)["answer"]
    refused = client.post("/api/v1/answers", json={"question": "x", "attribution": "never"})
    assert refused.json()["errors"][0]["pointer"] == "/attribution"
