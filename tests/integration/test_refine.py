"""Reranking, diversifying and widening results, and the explanation of a search."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.problems import Problem
from apps.documents import index_care, queries, remove, spaces
from apps.documents.accept import Accepted
from apps.documents.models import Collection, Document
from apps.generation.answers import answer
from apps.generation.citations import cite
from apps.generation.prompts import number
from apps.generation.types import AnswerRequest
from apps.generation.verify import verify
from apps.retrieval import policy, rerank
from apps.retrieval.batch import search_batch
from apps.retrieval.expand import expand
from apps.retrieval.filters import compile_filter
from apps.retrieval.rerank.served import ServedReranker
from apps.retrieval.search import search
from apps.retrieval.types import Hit, SearchQuery, SearchResult
from tests.conftest import make_collection
from tests.support.fake_reranker import FakeRerankServer, fake_reranker
from tests.support.papers import pdf
from tests.support.processes import ROOT
from tests.support.refusals import SEARCH, refused

Put = Callable[..., Accepted]
MODES = ("hybrid", "dense", "lexical")
SECRET_URL_KEY = "sk-rerank-secret"


@pytest.fixture(params=["scan", "index"])
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both ways of finding the nearest vectors."""
    with override_settings(EXACT_SCAN_ROWS=5_000 if request.param == "scan" else 0):
        yield request.param


@pytest.fixture(scope="module")
def running() -> Iterator[FakeRerankServer]:
    with fake_reranker() as server:
        yield server


@pytest.fixture
def reranker(running: FakeRerankServer, monkeypatch: pytest.MonkeyPatch) -> FakeRerankServer:
    """The server, configured."""
    running.requests.clear()
    running.during = None
    served = ServedReranker(url=running.url + "/rerank", model="ranker", api_key=SECRET_URL_KEY, timeout=3)
    monkeypatch.setattr(rerank, "configured", lambda: served)
    return running


def ask(collection: Collection, query: str, **options: Any) -> SearchResult:
    return search(tenant_id=collection.tenant_id, query=SearchQuery(query, **options))


def uris(result: SearchResult) -> list[str]:
    return [hit.source_uri for hit in result.hits]


# --- rerank -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_no_connection_waits_for_it_in_a_batch(
    collection: Collection, ingest: Put, reranker: FakeRerankServer, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    ingest(collection, "Pangolins have scales.", source_uri="pangolin")
    held: list[bool] = []
    look = ServedReranker.scores
    monkeypatch.setattr(
        ServedReranker,
        "scores",
        lambda *given: held.append(tenancy.is_open()) or look(*given),  # type: ignore[func-returns-value]
    )
    query = SearchQuery("pangolin", mode="lexical", consistency="eventual", rerank=True)
    for _ in range(2):
        found = search_batch(tenant_id=collection.tenant_id, queries=[query] * count)
        assert [uris(each) for each in found] == [["pangolin"]] * count
        assert all(each.rerank and not each.rerank.error for each in found)
        assert not tenancy.is_open() and tenancy.current() == ""
    assert held and not any(held)


def fill_ranked(collection: Collection, ingest: Put, count: int = 12) -> None:
    """Notes whose rank by the reranker is the reverse of their numbers' order."""
    for at in range(count):
        ingest(collection, f"The lighthouse note {at} of the keeper, score:-{at / 100 + 1:.2f}.", source_uri=f"n{at}")


@pytest.mark.parametrize("mode", MODES)
def test_the_reranker_orders_the_candidates_before_they_are_cut_to_k(
    collection: Collection, ingest: Put, reranker: FakeRerankServer, path: str, mode: str
) -> None:
    fill_ranked(collection, ingest)
    found = ask(collection, "lighthouse keeper", k=3, mode=mode, rerank=True)
    assert uris(found) == ["n0", "n1", "n2"]
    [(_, headers, body)] = reranker.requests
    assert len(body["documents"]) == 12 and headers["authorization"] == f"Bearer {SECRET_URL_KEY}"
    told = found.as_json()["rerank"]
    assert told == {"model": "ranker", "candidates": 12, "error": None}
    for hit in found.hits:
        assert hit.score == hit.scores["rerank"] is not None
    plain = ask(collection, "lighthouse keeper", k=12, mode=mode)
    assert plain.rerank is None and all(hit.scores["rerank"] is None for hit in plain.hits)
    by_uri = {hit.source_uri: hit for hit in plain.hits}
    for hit in found.hits:
        assert hit.scores | {"rerank": None} == by_uri[hit.source_uri].scores


def test_so_many_candidates_are_reranked_as_the_policy_says() -> None:
    for k, candidates in [(1, 50), (25, 50), (26, 52), (100, 200), (200, 200)]:
        assert SearchQuery("x", k=k, rerank=True).fetch == SearchQuery("x", k=k, diversify=0.5).fetch == candidates
        assert SearchQuery("x", k=k).fetch == k


def test_equals_stay_in_fused_order(collection: Collection, ingest: Put, reranker: FakeRerankServer) -> None:
    for at in range(5):
        ingest(collection, f"Lighthouse {'lamp ' * at}here.", source_uri=f"n{at}")
    assert uris(ask(collection, "lighthouse", rerank=True)) == uris(ask(collection, "lighthouse"))


@pytest.mark.parametrize(
    ("script", "code"),
    [("429", "rate_limited"), ("500", "server_error"), ("short", "bad_response"), ("slow", "timeout")],
)
def test_a_reranker_that_fails_leaves_the_fused_order_and_the_response_says_so(
    collection: Collection,
    ingest: Put,
    running: FakeRerankServer,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    code: str,
) -> None:
    impatient = ServedReranker(url=running.url + "/score", timeout=0.3 if code == "timeout" else 30)
    monkeypatch.setattr(rerank, "configured", lambda: impatient)
    fill_ranked(collection, ingest)
    query = f"lighthouse keeper script:{script}"
    found, plain = ask(collection, query, k=4, rerank=True), ask(collection, query, k=4)
    assert uris(found) == uris(plain)
    assert [hit.scores for hit in found.hits] == [hit.scores for hit in plain.hits]
    assert found.as_json()["rerank"] == {"model": "", "candidates": 12, "error": code}


def test_without_a_reranker_it_is_refused(client: httpx.Client, collection: Collection) -> None:
    refused(client.post(SEARCH, json={"query": "a", "rerank": True}), 422, "rerank_unavailable", "/rerank")
    assert client.post(SEARCH, json={"query": "a", "rerank": False}).json()["rerank"] is None


def test_no_transaction_waits_for_the_reranker(collection: Collection, ingest: Put, reranker: FakeRerankServer) -> None:
    fill_ranked(collection, ingest, 3)
    waiting: list[int] = []

    def look() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND state LIKE 'idle in transaction%'"
            )
            waiting.append(cursor.fetchone()[0])
        connection.close()

    reranker.during = look
    assert len(ask(collection, "lighthouse", rerank=True).hits) == 3
    assert waiting == [0]


@pytest.mark.parametrize("how", ["delete", "erase"])
def test_what_is_deleted_while_the_reranker_works_does_not_come_back(
    collection: Collection, ingest: Put, reranker: FakeRerankServer, path: str, how: str
) -> None:
    fill_ranked(collection, ingest)
    with tenancy.scope(collection.tenant_id):
        best = Document.objects.get(source_uri="n0").id

    def delete() -> None:
        assert remove.delete(tenant_id=collection.tenant_id, document_id=best, erase=how == "erase")
        connection.close()

    reranker.during = delete
    found = ask(collection, "lighthouse keeper", k=3, rerank=True, expand=1)
    assert any("note 0 of" in text for text in reranker.requests[0][2]["documents"])
    assert uris(found) == ["n1", "n2", "n3"]


def test_what_changes_while_the_reranker_works_is_not_shown_as_it_was(
    collection: Collection, ingest: Put, reranker: FakeRerankServer
) -> None:
    fill_ranked(collection, ingest, 4)

    def change() -> None:
        ingest(collection, "Something else altogether.", source_uri="n0")
        connection.close()

    reranker.during = change
    assert uris(ask(collection, "lighthouse keeper", k=2, rerank=True)) == ["n1", "n2"]


def test_what_is_deleted_while_a_reranker_fails_does_not_come_back_either(
    collection: Collection, ingest: Put, reranker: FakeRerankServer
) -> None:
    fill_ranked(collection, ingest, 4)

    def delete() -> None:
        with tenancy.scope(collection.tenant_id):
            ids = list(Document.objects.filter(source_uri__in=["n0", "n2"]).values_list("id", flat=True))
        for one in ids:
            remove.delete(tenant_id=collection.tenant_id, document_id=one)
        connection.close()

    reranker.during = delete
    found = ask(collection, "lighthouse keeper script:500", rerank=True)
    assert set(uris(found)) == {"n1", "n3"} and found.rerank and found.rerank.error == "server_error"


def test_the_past_is_reranked_widened_and_diversified_too(
    collection: Collection, ingest: Put, reranker: FakeRerankServer
) -> None:
    """What was deleted or changed since then is in it, what is erased while the reranker works is not."""
    fill_ranked(collection, ingest, 5)
    then = timezone.now()
    ingest(collection, "Something else altogether.", source_uri="n0")
    with tenancy.scope(collection.tenant_id):
        ids = dict(Document.objects.values_list("source_uri", "id"))
    remove.delete(tenant_id=collection.tenant_id, document_id=ids["n1"])
    asked: dict[str, Any] = {"k": 3, "as_of": then, "rerank": True, "expand": 1}
    for mode in MODES:
        assert uris(ask(collection, "lighthouse keeper", mode=mode, **asked)) == ["n0", "n1", "n2"]
        assert len(ask(collection, "lighthouse keeper", mode=mode, diversify=0.5, k=5, as_of=then).hits) == 5

    def erase() -> None:
        remove.delete(tenant_id=collection.tenant_id, document_id=ids["n2"], erase=True)
        connection.close()

    reranker.during = erase
    assert uris(ask(collection, "lighthouse keeper", **asked)) == ["n0", "n1", "n3"]


@pytest.mark.parametrize("asked", [None, True, False])
def test_answers_are_reranked_where_a_reranker_is_configured_unless_told_otherwise(
    collection: Collection, ingest: Put, reranker: FakeRerankServer, asked: bool | None
) -> None:
    fill_ranked(collection, ingest)
    request = AnswerRequest("What is the lighthouse note of the keeper?", k=2, rerank=asked)
    made = answer(tenant_id=collection.tenant_id, request=request)
    assert len(reranker.requests) == (asked is not False)
    assert made["citations"] and request.as_json()["rerank"] is asked
    if asked is not False:
        assert {citation["source_uri"] for citation in made["citations"]} <= {"n0", "n1"}


def test_an_answer_that_must_be_reranked_and_cannot_is_refused(client: httpx.Client, collection: Collection) -> None:
    body = {"question": "When?", "rerank": True}
    refused(client.post("/api/v1/answers", json=body), 422, "rerank_unavailable", "/rerank")
    assert client.post("/api/v1/answers", json=body | {"rerank": None}).status_code == 200
    chat = {"model": "ragsite/docs", "messages": [{"role": "user", "content": "When?"}], "rerank": True}
    refused(client.post("/v1/chat/completions", json=chat), 422)


def test_an_evaluation_measures_what_it_is_asked_to(tenant: Tenant, reranker: FakeRerankServer, tmp_path: Path) -> None:
    """The set's relevant document is not the one that words and vectors put first."""
    texts = {"d1": "Tides and tides and the moon, score:-2.0.", "d2": "Tides, by the moon, score:5.0.", "d3": "Otters."}
    corpus = [{"id": name, "text": text} for name, text in texts.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (tmp_path / "queries.jsonl").write_text(json.dumps({"id": "q", "text": "tides and moon"}))
    (tmp_path / "qrels.tsv").write_text("q\td2\t1\n")

    def measured(*options: str) -> dict[str, Any]:
        arguments = [str(tmp_path), "--tenant", tenant.slug, "--modes", "lexical", "--json", str(tmp_path / "told")]
        said = io.StringIO()
        call_command("evaluate", *arguments, *options, stdout=said)
        assert ("Searches with" in said.getvalue()) == bool(options)
        return json.loads((tmp_path / "told").read_text())

    plain, ranked = measured(), measured("--rerank")
    assert plain["rows"][0]["metrics"]["MRR@10"] == 0.5 and ranked["rows"][0]["metrics"]["MRR@10"] == 1.0
    assert ranked["rerank"] is True and plain["rerank"] is False
    assert measured("--diversify", "0.5", "--expand", "2")["diversify"] == 0.5
    (tmp_path / "queries.jsonl").write_text(json.dumps({"id": "q", "text": "tides script:500"}))
    with pytest.raises(CommandError, match="server_error"):
        measured("--rerank")
    for wrong in (["--diversify", "2"], ["--expand", "99"]):
        with pytest.raises(CommandError):
            measured(*wrong)


# --- diversify ----------------------------------------------------------------------------------------------------

OPERATE = (ROOT / "docs" / "howto" / "operate.md").read_text()


@pytest.fixture
def near_duplicates(collection: Collection, ingest: Put) -> Collection:
    """Five copies of a page that differ in a word, and four other pages."""
    section = OPERATE[OPERATE.index("## What happens when a worker dies?") :][:600]
    for at in range(5):
        ingest(collection, section.replace("worker", f"worker{'' if at == 0 else at}", 1), source_uri=f"copy{at}")
    for at, name in enumerate(["back-up-and-restore", "evaluate", "reindex", "citus"]):
        text = (ROOT / "docs" / "howto" / f"{name}.md").read_text()
        ingest(collection, text[:600] + " A worker dies here too, as it happens.", source_uri=f"other{at}")
    return collection


@pytest.mark.parametrize("mode", MODES)
def test_near_duplicates_make_room_for_others(near_duplicates: Collection, path: str, mode: str) -> None:
    query = "What happens when a worker dies?"
    plain = ask(near_duplicates, query, k=5, mode=mode)
    assert sum(uri.startswith("copy") for uri in uris(plain)) >= 4
    found = ask(near_duplicates, query, k=5, mode=mode, diversify=0.7)
    assert found.hits[0].chunk_id == plain.hits[0].chunk_id and len(found.hits) == 5
    assert sum(uri.startswith("copy") for uri in uris(found)) <= 2
    assert found.hits == ask(near_duplicates, query, k=5, mode=mode, diversify=0.7).hits
    assert uris(ask(near_duplicates, query, k=5, mode=mode, diversify=0.0)) == uris(plain)
    shown = found.as_json()["results"][0]
    assert "vector" not in shown


def test_what_is_chosen_is_reranked_first(near_duplicates: Collection, reranker: FakeRerankServer, path: str) -> None:
    found = ask(near_duplicates, "worker3 dies", k=3, rerank=True, diversify=0.5)
    assert found.hits[0].source_uri == "copy3" and found.hits[0].scores["rerank"] == 1.0
    assert sum(uri.startswith("copy") for uri in uris(found)) < 3


def test_vectors_of_different_models_are_not_compared(tenant: Tenant, collection: Collection, ingest: Put) -> None:
    slug = f"div-{str(tenant.id)[:8]}"
    spaces.create(slug=slug, backend="fake", model="fake", dimensions=16)
    ingest(collection, "A lighthouse.")
    ingest(make_collection(tenant, slug="other", space=slug), "A lighthouse as well.")
    assert len(ask(collection, "lighthouse", mode="lexical").hits) == 2
    with pytest.raises(Problem) as refusal:
        ask(collection, "lighthouse", mode="lexical", diversify=0.5)
    assert (refusal.value.status_code, refusal.value.code) == (422, "mixed_spaces")


# --- expand -------------------------------------------------------------------------------------------------------


def small_chunks(tenant: Tenant, *, overlap: int = 0, slug: str = "small") -> Collection:
    return make_collection(tenant, slug=slug, chunking={"max_tokens": 16, "overlap_tokens": overlap})


def check_windows(collection: Collection, found: SearchResult, neighbours: int) -> None:
    """Every result is the text of its version at its place, with the neighbours that it may have."""
    spans: dict[Any, list[tuple[Hit, int, int]]] = {}
    with tenancy.scope(collection.tenant_id):
        for hit in found.hits:
            text = queries.text(hit.document_id, hit.version, start=None, end=None)["text"]
            assert hit.text == text[hit.start : hit.end]
            assert hit.sha256 == hashlib.sha256(hit.text.encode()).hexdigest()
            chunks, _ = queries.chunks(hit.document_id, None, after=0, limit=10_000)
            own = next(at for at, chunk in enumerate(chunks) if chunk["chunk_id"] == hit.chunk_id)
            near = chunks[max(0, own - neighbours) : own + neighbours + 1]
            assert near[0]["start"] <= hit.start <= chunks[own]["start"]
            assert chunks[own]["end"] <= hit.end <= near[-1]["end"]
            spans.setdefault(hit.document_id, []).append((hit, chunks[own]["start"], chunks[own]["end"]))
            within = [chunk for chunk in near if chunk["start"] < hit.end and chunk["end"] > hit.start]
            assert within[0]["start"] <= hit.start and hit.end <= within[-1]["end"]
            paths = [chunk["heading_path"] for chunk in within]
            assert all(path[: len(hit.heading_path)] == list(hit.heading_path) for path in paths)
    for together in spans.values():
        for one, first, last in together:
            for other, start, end in together:
                if one is not other:
                    shared = range(max(one.start, other.start), min(one.end, other.end))
                    assert all(max(first, start) <= at < min(last, end) for at in shared)


LINES = [f"Sentence number {at} speaks of subject{at} and of nothing else at all." for at in range(12)]


@pytest.mark.parametrize("mode", MODES)
def test_a_hit_comes_with_its_neighbours(tenant: Tenant, ingest: Put, path: str, mode: str) -> None:
    collection = small_chunks(tenant)
    ingest(collection, "\n\n".join(LINES), source_uri="long")
    ingest(collection, LINES[3], source_uri="short")
    [plain] = ask(collection, "subject5", mode=mode, k=1).hits
    assert plain.text == LINES[5]
    found = ask(collection, "subject5", mode=mode, k=1, expand=2)
    [hit] = found.hits
    assert hit.text == "\n\n".join(LINES[3:8]) and hit.chunk_id == plain.chunk_id and hit.scores == plain.scores
    check_windows(collection, found, 2)
    [first] = ask(collection, "subject0", mode=mode, k=1, expand=10).hits
    assert first.text == "\n\n".join(LINES[:11])
    for n in (1, 3, 10):
        check_windows(collection, ask(collection, "sentence subject3 subject5 subject6", mode=mode, k=6, expand=n), n)


def test_the_text_between_two_hits_goes_to_the_better(tenant: Tenant, ingest: Put) -> None:
    collection = small_chunks(tenant)
    ingest(collection, "\n\n".join(LINES))
    found = ask(collection, "subject5 subject7", mode="lexical", k=2, expand=1)
    better, worse = found.hits
    middle = [hit for hit in found.hits if LINES[6] in hit.text]
    assert middle == [better] and {LINES[5] in better.text, LINES[7] in better.text} == {True, False}
    assert worse.text.count("Sentence") == 2


def test_chunks_that_overlap_are_stitched_without_repeating(tenant: Tenant, ingest: Put, path: str) -> None:
    collection = small_chunks(tenant, overlap=5)
    ingest(collection, " ".join(LINES))
    for k in (1, 3, 8):
        found = ask(collection, "subject4 number 5", k=k, expand=2)
        assert len(found.hits) == k
        check_windows(collection, found, 2)


def test_headings_are_those_above_all_of_it_and_the_page_is_where_it_starts(tenant: Tenant, ingest: Put) -> None:
    collection = small_chunks(tenant)
    ingest(
        collection,
        f"# Book\n\n{LINES[0]}\n\n## One\n\n{LINES[1]}\n\n## Two\n\n{LINES[2]}\n\n{LINES[3]}\n",
        media_type="text/markdown",
        source_uri="book.md",
    )
    [plain] = ask(collection, "subject2", k=1).hits
    assert plain.heading_path == ("Book", "Two")
    [wide] = ask(collection, "subject2", k=1, expand=1).hits
    assert LINES[1] in wide.text and wide.heading_path == ("Book",)
    ingest(collection, pdf(LINES[:4], LINES[4:8], LINES[8:]), media_type="application/pdf", source_uri="pages.pdf")
    of_pdf = compile_filter({"source_uri": "pages.pdf"})
    [plain] = ask(collection, "subject5", k=1, filter=of_pdf).hits
    assert plain.page == 2
    [wide] = ask(collection, "subject5", k=1, filter=of_pdf, expand=3).hits
    assert wide.page == 1
    for at, line in enumerate(LINES):
        if line in wide.text:
            assert wide.page_of(wide.start + wide.text.index(line)) == at // 4 + 1
    check_windows(collection, ask(collection, "subject5", k=4, filter=of_pdf, expand=3), 3)


def test_citations_of_a_widened_hit_verify(tenant: Tenant, ingest: Put) -> None:
    collection = small_chunks(tenant)
    ingest(collection, "\n\n".join(LINES))
    found = ask(collection, "subject5", k=1, expand=2)
    answer = f"{LINES[3]} [1]"
    [citation] = cite(answer, number(found.hits))
    assert citation["quote"] == LINES[3] and citation["start"] == 3 * (len(LINES[0]) + 2)
    with tenancy.scope(tenant.id):
        assert verify([citation]) == [{"marker": 1, "verified": True}]


def test_a_hit_whose_version_changed_meanwhile_stays_as_it_is(tenant: Tenant, ingest: Put) -> None:
    """On Citus no snapshot spans two statements."""
    collection = small_chunks(tenant)
    ingest(collection, "\n\n".join(LINES))
    hits = ask(collection, "subject5", k=1).hits
    later = [replace(hits[0], version=hits[0].version + 1), replace(hits[0], revision=7)]
    with tenancy.scope(tenant.id):
        assert expand(later[:1], 2) == later[:1] and expand(later[1:], 2) == later[1:]
        assert expand(hits, 2) != hits and expand(hits, 0) == hits and expand([], 2) == []


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    words=st.lists(TEXTS, min_size=5, max_size=120), n=st.integers(1, 10), k=st.integers(1, 20), overlap=st.booleans()
)
def test_any_text_is_stitched_exactly(
    tenant: Tenant, ingest: Put, words: list[str], n: int, k: int, overlap: bool
) -> None:
    text = " ".join(words)
    assume(text.strip())
    collection = small_chunks(tenant, overlap=5 if overlap else 0, slug=f"u{uuid4().hex[:12]}")
    with contextlib.suppress(Problem):  # a text of nothing that can be kept
        ingest(collection, text)
    found = ask(collection, text[:200], collections=(collection.slug,), k=k, mode="dense", expand=n)
    check_windows(collection, found, n)


# --- explain ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_an_explanation_tells_what_each_leg_did(collection: Collection, ingest: Put, path: str, mode: str) -> None:
    for at in range(4):
        ingest(collection, f"The lighthouses of coast {at} shine.", source_uri=f"n{at}", metadata={"at": at})
    found = ask(
        collection,
        "shining lighthouse",
        mode=mode,
        k=2,
        filter=compile_filter({"metadata.at": {"$lt": 2}}),
        explain=True,
    )
    told = found.as_json()["explain"]
    assert told["mode"] == mode and told["filter"] == {"share": 0.5} and told["candidates"] == 2
    assert told["collections"] == {"docs": {"chunks": 4, "language": "english"}}
    assert (told["dense"] is None) == (mode == "lexical") and (told["lexical"] is None) == (mode == "dense")
    assert (told["fusion"] is None) == (mode != "hybrid")
    for leg in filter(None, (told["dense"], told["lexical"])):
        assert leg["found"] == 2 and leg["ms"] > 0 and leg["wanted"] == (10 if mode == "dense" else 100)
    if told["lexical"]:
        assert told["lexical"]["method"] == "bm25" and _names(told["lexical"]["terms"]) == ["lighthous", "shine"]
    if told["dense"]:
        assert told["dense"]["method"] == ("exact" if path == "scan" else "filtered")
    json.dumps(told)


def _names(terms: list[dict[str, Any]]) -> list[str]:
    return sorted(term["term"].strip("'") for term in terms)


def test_the_index_and_its_settings_are_told(
    collection: Collection, ingest: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(collection, "The lighthouses shine.")
    monkeypatch.setattr(index_care, "LOOKED_AT_SECONDS", 3600)
    dead = index_care.look(collection.space.table)  # other tests have left some
    query = SearchQuery("lighthouse", explain=True)
    with override_settings(EXACT_SCAN_ROWS=0):
        told = search(tenant_id=collection.tenant_id, query=query).as_json()["explain"]["dense"]
    assert told["method"] == "index" and told["index"] == "hnsw" and told["found"] == 1
    used = policy.index_settings(collection.space, policy.candidates(query), chunks=1, dead=dead)
    assert told["settings"] == used


def test_an_explanation_names_no_address_no_key_and_no_other_tenant(
    collection: Collection, ingest: Put, reranker: FakeRerankServer, other_tenant: Tenant
) -> None:
    ingest(make_collection(other_tenant, slug="theirs"), "The lighthouse is a secret of ours.")
    ingest(collection, "The lighthouses shine.")
    found = ask(collection, "lighthouse", explain=True, rerank=True, diversify=0.3, expand=1)
    told = found.as_json()["explain"]
    assert told["rerank"] | {"ms": 0} == {
        "backend": "http", "model": "ranker", "candidates": 1, "error": None, "ms": 0,
    }  # fmt: skip
    assert told["rerank"]["ms"] > 0 and told["diversify"] == 0.3 and told["expand"] == 1
    assert told["dense"]["found"] == told["lexical"]["found"] == 1
    said = json.dumps(told)
    for secret in (reranker.url, SECRET_URL_KEY, "theirs", "SELECT", "embedding_", str(collection.tenant_id)):
        assert secret not in said
    assert ask(collection, "lighthouse").explain is None


def test_nothing_to_search_is_nothing_to_explain(tenant: Tenant) -> None:
    found = search(tenant_id=tenant.id, query=SearchQuery("x", explain=True, rerank=False, diversify=0.5, expand=2))
    assert found.hits == [] and found.explain is None


# --- the interface ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("rerank", [1, "true", None, []]),
        ("diversify", [-0.1, 1.1, "0.5", True, None, float("nan"), 10**400]),
        ("expand", [-1, 11, 1.5, "1", True, None]),
        ("explain", [0, "yes", None, {}]),
    ],
)
def test_a_bad_option_is_named(client: httpx.Client, collection: Collection, field: str, values: list[Any]) -> None:
    for value in values:
        body = json.dumps({"query": "a", field: value}).encode()
        response = client.post(SEARCH, content=body, headers={"content-type": "application/json"})
        assert response.status_code == 400, (field, value)


def test_options_over_http(client: httpx.Client, tenant: Tenant, ingest: Put) -> None:
    ingest(small_chunks(tenant), "\n\n".join(LINES))
    body = {"query": "subject5", "k": 1, "diversify": 0.5, "expand": 1, "explain": True}
    answer = client.post(SEARCH, json=body).json()
    [hit] = answer["results"]
    assert hit["text"] == "\n\n".join(LINES[4:7])
    assert answer["explain"]["dense"]["method"] == "exact" and answer["rerank"] is None
    assert set(answer["timings"]) == {"embed_ms", "search_ms", "rerank_ms", "total_ms"}
