"""What readers say of answers: POST /api/v1/answers/{id}/feedback, its export, and labelled sets made of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from apps.access import keys, tenancy
from apps.access.models import Tenant
from apps.documents import erasure, remove
from apps.documents.models import Collection
from apps.generation import feedback
from apps.generation.models import Feedback
from tests.conftest import make_collection
from tests.support.asking import ask
from tests.support.processes import Server
from tests.support.refusals import refused

EXPORT, SETS = "/api/v1/answers/feedback", "/api/v1/evaluations/sets"
QUESTION = "When do backups run every night?"


def say(client: httpx.Client, answer: dict[str, Any], rating: str = "up", **fields: Any) -> dict[str, Any]:
    found = client.post(f"/api/v1/answers/{answer['id']}/feedback", json={"rating": rating} | fields)
    assert found.status_code == 201, found.text
    return found.json()


def test_feedback_is_kept_and_the_second_of_a_key_replaces_the_first(
    client: httpx.Client, tenant: Tenant, guide: Collection, make_key: Callable[..., str], web: Server
) -> None:
    answer = ask(client, QUESTION)
    first = say(client, answer, "down", comment="The hour is wrong.", tags=["hours", "wrong", "hours"])
    assert first["tags"] == ["hours", "wrong"] and first["answer_id"] == answer["id"]
    second = say(client, answer, "up")
    assert second["id"] == first["id"] and second["created_at"] > first["created_at"]
    assert (second["rating"], second["comment"], second["tags"]) == ("up", "", [])
    with web.client(make_key(tenant, "read")) as another:
        say(another, answer, "down")
    with tenancy.scope(tenant.id):
        assert sorted(Feedback.objects.values_list("rating", flat=True)) == ["down", "up"]


def test_ten_at_once_of_one_key_are_one(client: httpx.Client, tenant: Tenant, guide: Collection) -> None:
    answer = ask(client, QUESTION)
    with ThreadPoolExecutor(10) as pool:
        said = list(pool.map(lambda number: say(client, answer, "down", comment=str(number)), range(10)))
    assert len({each["id"] for each in said}) == 1
    with tenancy.scope(tenant.id):
        assert Feedback.objects.get().comment in {each["comment"] for each in said}


def test_feedback_is_exported_page_by_page_with_what_it_is_about(client: httpx.Client, guide: Collection) -> None:
    answers = [ask(client, f"{QUESTION} ({number})") for number in range(5)]
    for number, answer in enumerate(answers):
        say(client, answer, "down" if number % 2 else "up", comment=f"no. {number}", tags=[f"t{number}"])
    found, path = [], f"{EXPORT}?limit=2"
    while path:
        page = client.get(path).json()
        found += page["results"]
        path = page["next"]
    assert [each["comment"] for each in found] == [f"no. {number}" for number in (4, 3, 2, 1, 0)]
    last, answer = found[0], answers[4]
    assert last["question"] == f"{QUESTION} (4)" and last["answer_id"] == answer["id"]
    for name in ("answer", "citations", "grounded", "abstained", "model", "prompt_version"):
        assert last[name] == answer[name], name
    listed = client.get(EXPORT, params={"rating": "down"}).json()["results"]
    assert [each["comment"] for each in listed] == ["no. 3", "no. 1"]
    assert [each["rating"] for each in client.get(EXPORT, params={"tag": "t2"}).json()["results"]] == ["up"]
    refused(client.get(EXPORT, params={"rating": "meh"}), 400, pointer="/rating")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        pytest.param({}, "/rating", id="nothing"),
        pytest.param({"rating": "best"}, "/rating", id="rating"),
        pytest.param({"rating": 1}, "/rating", id="number"),
        pytest.param({"rating": "up", "comment": 5}, "/comment", id="comment"),
        pytest.param({"rating": "up", "comment": "x" * 4001}, "/comment", id="long-comment"),
        pytest.param({"rating": "up", "tags": "dated"}, "/tags", id="tags"),
        pytest.param({"rating": "up", "tags": ["x"] * 21}, "/tags", id="many-tags"),
        pytest.param({"rating": "up", "tags": ["a", "x" * 51]}, "/tags/1", id="long-tag"),
        pytest.param({"rating": "up", "stars": 5}, "/stars", id="unknown"),
    ],
)
def test_a_bad_field_is_named(client: httpx.Client, collection: Collection, body: dict, pointer: str) -> None:
    answer = ask(client)
    refused(client.post(f"/api/v1/answers/{answer['id']}/feedback", json=body), 400, pointer=pointer)
    assert client.get(EXPORT).json()["results"] == []


def test_feedback_needs_read_and_stays_behind_the_wall(
    client: httpx.Client,
    tenant: Tenant,
    other_tenant: Tenant,
    guide: Collection,
    make_key: Callable[..., str],
    web: Server,
) -> None:
    answer = ask(client, QUESTION)
    say(client, answer, comment="Walled.")
    path = f"/api/v1/answers/{answer['id']}/feedback"
    with web.client(make_key(other_tenant)) as stranger:
        refused(stranger.post(path, json={"rating": "up"}), 404)
        assert stranger.get(EXPORT).json()["results"] == []
    with web.client(make_key(tenant, "write", "admin")) as writer:
        refused(writer.post(path, json={"rating": "up"}), 403, "missing_scope")
        refused(writer.get(EXPORT), 403, "missing_scope")
    refused(client.post(f"/api/v1/answers/{uuid4()}/feedback", json={"rating": "up"}), 404)
    assert Feedback.objects.count() == 0, "a query without a tenant sees nothing"


def test_an_erasure_takes_feedback_along(client: httpx.Client, tenant: Tenant, guide: Collection) -> None:
    answer = ask(client, QUESTION)
    again = client.post(f"/api/v1/answers/{answer['id']}/replay").json()
    for body in (answer, again):
        say(client, body, "down", comment="But it says: backups run every night at 02:30 UTC.")
    document_id = UUID(answer["citations"][0]["document_id"])
    with tenancy.scope(tenant.id):
        assert erasure.traces(document_id)["generation_feedback"] == 2
    remove.delete(tenant_id=tenant.id, document_id=document_id, erase=True)
    with tenancy.scope(tenant.id):
        assert set(erasure.traces(document_id).values()) == {0} and not Feedback.objects.exists()
    refused(client.post(f"/api/v1/answers/{answer['id']}/feedback", json={"rating": "up"}), 404)


def test_feedback_that_comes_during_an_erasure_goes_too(
    client: httpx.Client, tenant: Tenant, guide: Collection, api_key: str
) -> None:
    answer = ask(client, QUESTION)
    again = client.post(f"/api/v1/answers/{answer['id']}/replay").json()
    document_id = UUID(answer["citations"][0]["document_id"])
    caller = keys.recognise(api_key)
    assert caller is not None
    with ThreadPoolExecutor(1) as pool:
        with tenancy.scope(tenant.id):
            for body in (answer, again):
                said = {"rating": "down", "comment": "At 02:30 UTC?"}
                feedback.give(tenant_id=tenant.id, key_id=caller.key_id, answer_id=UUID(body["id"]), **said)
            erasing = pool.submit(remove.delete, tenant_id=tenant.id, document_id=document_id, erase=True)
            time.sleep(0.5)
            assert not erasing.done(), "it waits for what is under way"
        erasing.result(30)
    with tenancy.scope(tenant.id):
        assert set(erasure.traces(document_id).values()) == {0} and not Feedback.objects.exists()


def test_answers_that_were_voted_up_label_what_they_cite(
    client: httpx.Client,
    guide: Collection,
    tenant: Tenant,
    ingest: Callable[..., Any],
    make_key: Callable[..., str],
    web: Server,
) -> None:
    elsewhere = make_collection(tenant, slug="elsewhere")
    ingest(elsewhere, "The canteen serves soup on Thursdays.", source_uri="canteen")
    cited = {}
    for question, rating in (
        (QUESTION, "up"),
        ("Which role does the restore command need: the operator role?", "down"),
        ("When does the canteen serve soup?", "up"),
        ("zebra quantum chromodynamics?", "up"),
    ):
        answer = ask(client, question)
        say(client, answer, rating)
        cited[question] = {citation["document_id"] for citation in answer["citations"]}
    body = {"name": "Liked", "collection": "docs", "from_feedback": True}
    made = client.post(SETS, json=body)
    assert made.status_code == 201, made.text
    first = {"id": client.get(EXPORT, params={"rating": "up"}).json()["results"][-1]["answer_id"]}
    [labelled] = made.json()["labelled"]
    assert labelled["query"] == QUESTION and labelled["answer"] is None
    assert {label["document_id"] for label in labelled["relevant"]} == cited[QUESTION] != set()
    assert {label["grade"] for label in labelled["relevant"]} == {1}
    run = client.post("/api/v1/evaluations/runs", json={"set": made.json()["id"], "modes": ["lexical"]}).json()
    assert run["metrics"]["lexical"]["MRR@10"] == 1

    assert client.post(SETS, json=body | {"name": "Soup", "collection": "elsewhere"}).json()["queries"] == 1
    with web.client(make_key(tenant, "read")) as another:
        say(another, ask(client, QUESTION), "down")
        assert client.post(SETS, json=body | {"name": "Of another answer"}).json()["queries"] == 1
        say(another, first, "down")
    refused(client.post(SETS, json=body | {"name": "Disputed"}), 422, "no_feedback")


def test_a_set_without_a_vote_is_refused(client: httpx.Client, guide: Collection) -> None:
    body = {"name": "Liked", "collection": "docs", "from_feedback": True}
    refused(client.post(SETS, json=body), 422, "no_feedback")
    answer = ask(client, QUESTION)
    say(client, answer, "up")
    document = answer["citations"][0]["document_id"]
    assert client.delete(f"/api/v1/documents/{document}").status_code == 204
    refused(client.post(SETS, json=body), 422, "no_feedback")
    refused(client.post(SETS, json=body | {"collection": "nowhere"}), 422, "unknown_collection")
    refused(client.post(SETS, json=body | {"queries": []}), 400, pointer="/queries")
    refused(client.post(SETS, json={"name": "None", "collection": "docs"}), 400, pointer="/queries")
