"""`attribution: after`: the model does not cite; its sentences are cited when they are written."""

from __future__ import annotations

import json
from collections.abc import Iterator

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


MONTH = "You can go back about a month"
FROM = {"sentence": 1, "passage": 1, "quote": "They are kept for 35 days."}
FREE = f"The backups run every night at 02:30 UTC [1]. {MONTH} [1]. They are kept for 35 days [1]."


@pytest.fixture
def finding(llm: FakeServer) -> Iterator[FakeServer]:
    """The model finds the sentence that it wrote in words of its own in the first passage."""
    llm.sources = [FROM]
    yield llm
    llm.sources = []


def test_the_model_is_asked_for_what_words_do_not_find(
    reader: httpx.Client, guide: Collection, finding: FakeServer
) -> None:
    before = len(finding.requests)
    body = ask(reader, "When do backups run? script:free", attribution="model")
    assert body["answer"] == FREE
    assert [(one["supported"], one["citations"]) for one in body["sentences"]] == [
        (True, [1]),
        (False, [1]),  # its word is a citation and no proof
        (True, [1]),
    ]
    writing, asking = finding.requests[before:]
    assert "Write no numbers in square brackets" in writing["messages"][0]["content"]
    assert asking["response_format"]["json_schema"]["name"] == "sources"
    told = asking["messages"][-1]["content"]
    assert told.startswith("Passages:\n\n[1] <passage") and "They are kept for 35 days." in told
    assert told.endswith(f"Sentences:\n\n1. {MONTH}.")
    assert body["usage"]["total_tokens"] == 36, "of both"
    assert reader.get(f"/api/v1/answers/{body['id']}/verify").json()["verified"]
    stored = reader.get(f"/api/v1/answers/{body['id']}").json()
    assert stored["citations"] == body["citations"]
    again = reader.post(f"/api/v1/answers/{body['id']}/replay", json={}).json()
    assert again["difference"]["same"]


def test_what_words_find_leaves_at_once_and_the_rest_together(
    reader: httpx.Client, guide: Collection, finding: FakeServer
) -> None:
    body = {"question": "When do backups run? script:free", "attribution": "model", "stream": True}
    with reader.stream("POST", "/api/v1/answers", json=body) as response:
        found = events(response.iter_lines())
    deltas = [data["delta"] for name, data in found if name == "message"]
    assert deltas == [FREE[: FREE.index(" You")], FREE[FREE.index(" You") :]]
    assert found[-1][1]["answer"] == FREE


def test_nobody_is_asked_where_words_find_everything(
    reader: httpx.Client, guide: Collection, finding: FakeServer
) -> None:
    before = len(finding.requests)
    assert ask(reader, "When do backups run?", attribution="model")["citations"] != []
    assert len(finding.requests) == before + 1
    nothing = ask(reader, "When? script:json-none", attribution="model")
    assert (nothing["abstained"], len(finding.requests)) == (True, before + 2)


@pytest.mark.parametrize("script", ["500", "429-later", "garbage", "cut", "json", "empty", "normal"])
def test_a_model_that_does_not_say_leaves_what_words_found(
    reader: httpx.Client, guide: Collection, llm: FakeServer, script: str
) -> None:
    llm.sources = script
    try:
        body = ask(reader, "When do backups run? script:free", attribution="model")
    finally:
        llm.sources = []
    assert body["answer"] == FREE.replace(f"{MONTH} [1]", MONTH)
    assert [one["supported"] for one in body["sentences"]] == [True, False, True]
    assert body["degraded"] is None
    assert body["usage"]["total_tokens"] >= 18
    llm.sources = [FROM]
    try:
        again = ask(reader, "When do backups run? script:free", attribution="model")
    finally:
        llm.sources = []
    assert (again["cached"], again["answer"]) == (False, FREE), "what may be better is not given again"
    assert ask(reader, "When do backups run? script:free", attribution="model")["cached"]


def test_the_model_is_asked_for_strings_of_json_at_once(
    reader: httpx.Client, guide: Collection, llm: FakeServer
) -> None:
    llm.sources = [FROM]
    before = len(llm.requests)
    try:
        body = ask(
            reader,
            "When do backups run? script:json-free",
            attribution="model",
            response_format={"type": "object", "required": ["a"]},
        )
    finally:
        llm.sources = []
    assert json.loads(body["answer"]) == {
        "a": "Backups run every night at 02:30 UTC [1].",
        "b": [f"{MONTH} [1]. Nobody knows more.", "They are kept for 35 days [1]."],
    }
    assert len(llm.requests) == before + 2
    assert llm.requests[-1]["messages"][-1]["content"].endswith(f"1. {MONTH}.\n2. Nobody knows more.")


def test_null_is_the_default(reader: httpx.Client, guide: Collection) -> None:
    assert ask(reader, attribution=None)["citations"] != []


def test_what_was_read_before_the_model_broke_off_counts(
    reader: httpx.Client, guide: Collection, llm: FakeServer
) -> None:
    llm.sources = "cut"
    try:
        assert ask(reader, "When do backups run? script:free", attribution="model")["usage"]["total_tokens"] > 18
    finally:
        llm.sources = []


def test_json_that_says_that_there_is_no_answer_is_not_asked_about(
    reader: httpx.Client, guide: Collection, finding: FakeServer
) -> None:
    before = len(finding.requests)
    wanted = {"type": "json_object"}
    body = ask(reader, "When do backups run? script:json-sorry", attribution="model", response_format=wanted)
    assert (body["abstained"], body["citations"], len(finding.requests)) == (True, [], before + 1)


def test_strings_without_room_for_a_marker_are_not_asked_about(
    reader: httpx.Client, guide: Collection, llm: FakeServer
) -> None:
    before = len(llm.requests)
    kinds = {"properties": {"b": {"items": {"maxLength": 60}}}}
    question = "When do backups run? script:json-free"
    body = ask(reader, question, attribution="model", response_format=kinds)
    assert len(llm.requests) == before + 2
    kinds = {"properties": {"b": {"items": {"enum": json.loads(body["answer"].replace(" [1]", ""))["b"]}}}}
    ask(reader, question, attribution="model", response_format=kinds)
    assert len(llm.requests) == before + 3


def test_a_call_of_tools_does_not_wait(reader: httpx.Client, guide: Collection, finding: FakeServer) -> None:
    before = len(finding.requests)
    tools = [{"type": "function", "function": {"name": name}} for name in ("weather", "time")]
    question = [{"role": "user", "content": "When do backups run? script:free-call"}]
    body = {"model": "ragsite/docs", "messages": question, "tools": tools, "attribution": "model"}
    said = reader.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert said["finish_reason"] == "tool_calls" and MONTH in said["message"]["content"]
    assert len(finding.requests) == before + 1
