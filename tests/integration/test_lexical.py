"""Searching by words: relevance, identifiers, phrases, beginnings, typos, scripts without spaces, and large
collections, where chunks are chosen by counts (real Postgres)."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import db, lexicon, remove, tasks
from apps.documents.accept import Accepted
from apps.documents.models import Collection, Lexeme, Lexicon
from apps.retrieval import lexical
from apps.retrieval.scopes import scopes_of
from apps.retrieval.search import search
from apps.retrieval.types import Hit, SearchQuery
from tests.conftest import make_collection

Ingest = Callable[..., Accepted]


def hits(collection: Collection, query: str, **values: Any) -> list[Hit]:
    asked = SearchQuery(query, collections=(collection.slug,), **{"mode": "lexical"} | values)
    return search(tenant_id=collection.tenant_id, query=asked).hits


def names(collection: Collection, query: str, **values: Any) -> list[str]:
    return [hit.source_uri for hit in hits(collection, query, **values)]


def count(collection: Collection) -> int:
    return lexicon.count(tenant_id=collection.tenant_id, collection_id=collection.id)


@pytest.fixture
def manual(collection: Collection, ingest: Ingest) -> Collection:
    texts = {
        "reset": "The code ERR_CONN_RESET means that the other side closed the connection.",
        "refused": "The code ERR_CONN_REFUSED means that nobody listens. A connection was not made.",
        "codes": "Codes begin with ERR, then comes CONN or another part, and a reset of the code list is rare.",
        "vpn": "The configuration of the tunnel is kept by the gateway.",
        "order": "A gateway keeps the tunnel; of configuration nothing is said.",
        "printer": "Printing retrieves the queue of the machine.",
    }
    for name, text in texts.items():
        ingest(collection, text, source_uri=name)
    return collection


def test_an_identifier_finds_its_own_chunk_first(manual: Collection) -> None:
    for written in ("ERR_CONN_RESET", "err_conn_reset", "err-conn-reset", "ErrConnReset", "what is ERR_CONN_RESET?"):
        assert names(manual, written)[0] == "reset", written
    assert names(manual, "ERR_CONN_REFUSED")[0] == "refused"
    assert set(names(manual, "conn")) == {"reset", "refused", "codes"}  # a part of it is a word as well


def test_a_phrase_comes_first_and_the_others_are_not_lost(manual: Collection) -> None:
    assert names(manual, '"configuration of the tunnel"')[0] == "vpn"
    assert names(manual, "“keeps the tunnel”")[0] == "order"
    assert set(names(manual, '"configuration of the tunnel"')) == {"vpn", "order"}
    assert names(manual, '"') == names(manual, '""') == names(manual, '"of the"') == []


def test_the_beginning_of_a_word(manual: Collection) -> None:
    assert set(names(manual, "config*")) == {"vpn", "order"}
    assert set(names(manual, "tunn* queue")) == {"vpn", "order", "printer"}
    for hostile in ("*", "**", "a*", "x:*", "'*", "foo' & bar*", "a b* | c*", "\\*", "((tunn*"):
        names(manual, hostile)


def test_a_misspelt_word(manual: Collection) -> None:
    assert names(manual, "gatway configuratoin") == []  # nothing has been counted yet
    count(manual)
    assert set(names(manual, "gatway")) == {"vpn", "order"}
    assert set(names(manual, "configuratoin")) == {"vpn", "order"}
    assert names(manual, "retreives") == ["printer"]
    assert names(manual, "gatway") == names(manual, "gateway")
    assert names(manual, "lighthouse") == names(manual, "cod") == []


def test_typos_see_only_what_the_tenant_has(manual: Collection, other_tenant: Tenant, ingest: Ingest) -> None:
    count(manual)
    other = make_collection(other_tenant)
    ingest(other, "Nothing about gates.", source_uri="gates")
    count(other)
    assert hits(other, "gatway") == []
    with tenancy.scope(other_tenant.id):
        assert not Lexeme.objects.filter(lexeme="gateway").exists()
        terms = lexical.read(scopes_of(None), "gateway printer").terms
    assert all(term.counts == (1.0,) * 4 for term in terms)


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ("東京都は日本の首都である。", ["東京都", "日本の首都", "首都はどこ", "都"]),
        ("北京是中华人民共和国的首都。", ["首都是哪里", "中华人民", "京"]),
        ("กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", ["เมืองหลวง", "ประเทศไทย"]),
        ("서울은 대한민국의 수도이다.", ["대한민국", "수도"]),
    ],
)
def test_scripts_without_spaces(collection: Collection, ingest: Ingest, text: str, queries: list[str]) -> None:
    ingest(collection, text, source_uri="capital")
    ingest(collection, "水は山から流れる。 수박. 天气很好。 อากาศดี", source_uri="other")
    for query in queries:
        assert names(collection, query)[0] == "capital", query


WORDS = [f"word{number}" for number in range(300)]


def fill(collection: Collection, ingest: Ingest, *, documents: int = 12) -> None:
    """Texts of words that are as unevenly frequent as those of a language."""
    dice = random.Random(4)
    weights = [1 / (rank + 2) for rank in range(len(WORDS))]
    for number in range(documents):
        lines = [" ".join(dice.choices(WORDS, weights, k=dice.randint(20, 60))) + "." for _ in range(40)]
        ingest(collection, "\n\n".join(lines), source_uri=f"{number}")


def test_chosen_chunks_hold_the_best_ones(
    collection: Collection, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside scoring all that match. With few rows to choose from, so that there is something to choose."""
    fill(collection, ingest)
    dice = random.Random(5)
    queries = [" ".join(dice.sample(WORDS[:60], dice.randint(1, 6))) for _ in range(40)]
    every = {query: hits(collection, query) for query in queries}
    assert count(collection) > 300
    monkeypatch.setattr(lexical, "PLANNED_CHUNKS", 0)
    monkeypatch.setattr(lexical, "ROWS", 60)
    with tenancy.scope(collection.tenant_id):
        chunks = scopes_of(None)[0].chunks
        plans = {query: lexical.read(scopes_of(None), query) for query in queries}
        matched = []
        for query in queries:
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM documents_chunk WHERE tsv @@ %s::tsquery", [plans[query].plan])
                matched.append(cursor.fetchone()[0])
    assert all(plan.counted for plan in plans.values())
    assert sum(matched) / len(matched) < 0.5 * chunks < chunks
    found = {query: hits(collection, query) for query in queries}
    best = [len({hit.chunk_id for hit in found[query]} & {hit.chunk_id for hit in every[query]}) for query in queries]
    assert sum(best) / sum(map(len, every.values())) > 0.9
    for query in queries:
        assert found[query][0].score == pytest.approx(every[query][0].score, rel=0.02)


def test_words_that_never_stand_together_are_found_nevertheless(
    collection: Collection, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts let expect that they do: the chosen chunks are none."""
    for number in range(40):
        ingest(collection, f"The {'harbour' if number % 2 else 'mountain'} of text {number}.", source_uri=str(number))
    count(collection)
    monkeypatch.setattr(lexical, "PLANNED_CHUNKS", 0)
    monkeypatch.setattr(lexical, "ROWS", 5)
    with tenancy.scope(collection.tenant_id):
        chosen = lexical.read(scopes_of(None), "harbour mountain")
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM documents_chunk WHERE tsv @@ %s::tsquery", [chosen.plan])
            assert chosen.chosen and cursor.fetchone()[0] == 0
    assert len(hits(collection, "harbour mountain")) == 10
    assert any(hit.scores["lexical"] for hit in hits(collection, "harbour mountain", mode="hybrid"))


def test_words_that_nothing_has_are_not_looked_for_twice(
    collection: Collection, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(collection, ingest, documents=2)
    count(collection)
    monkeypatch.setattr(lexical, "PLANNED_CHUNKS", 0)
    with tenancy.scope(collection.tenant_id):
        assert not lexical.read(scopes_of(None), "qqqq zzzz").chosen
        assert not lexical.read(scopes_of(None), "").chosen
    assert hits(collection, "qqqq zzzz", mode="hybrid")


def test_what_came_after_the_counting_is_found(
    collection: Collection, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(collection, ingest, documents=2)
    count(collection)
    monkeypatch.setattr(lexical, "PLANNED_CHUNKS", 0)
    ingest(collection, "A brandnewword, beside word1 and word2.", source_uri="new")
    assert names(collection, "brandnewword") == ["new"]
    assert names(collection, "word1 brandnewword word2")[0] == "new"


def test_an_erased_word_is_known_no_more(collection: Collection, ingest: Ingest) -> None:
    ingest(collection, "Mountains are high.", source_uri="kept")
    secret = ingest(collection, "Mountains hide Xanthippe. Xanthippe, Xanthippe!", source_uri="secret").document
    count(collection)

    def known() -> dict[str, int]:
        with tenancy.scope(collection.tenant_id):
            return dict(Lexeme.objects.filter(lexeme__regex="^(xanthi|mountain)").values_list("lexeme", "chunks"))

    assert {name: number for name, number in known().items() if name.isalpha()} == {"xanthipp": 1, "mountain": 2}
    assert len(known()) == 4  # with those that say that it is there twice and three times
    remove.delete(tenant_id=collection.tenant_id, document_id=secret.id, erase=True)
    assert known() == {"mountain": 1}


def test_words_are_looked_up_once_until_they_are_counted_or_erased(
    collection: Collection, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(collection, "Mountains are high.", source_uri="kept")
    secret = ingest(collection, "Mountains hide Xanthippe.", source_uri="secret").document
    count(collection)
    looked_up: list[str] = []
    look_up = lexical._looked_up
    monkeypatch.setattr(lexical, "_looked_up", lambda scopes, query: looked_up.append(query) or look_up(scopes, query))

    def terms() -> dict[str, float]:
        with tenancy.snapshot(collection.tenant_id):
            read = lexical.read(scopes_of([collection.slug]), "xantippe mountains")
        return {term.name: term.counts[0] for term in read.terms}

    assert terms() == terms() == {"mountain": 2, "xantipp": 1, "xanthipp": 1} and len(looked_up) == 1
    ingest(collection, "More mountains.", source_uri="more")
    assert terms()["mountain"] == 3 and len(looked_up) == 1, "as much more as there are chunks more"
    count(collection)
    assert terms()["mountain"] == 3 and len(looked_up) == 2
    remove.delete(tenant_id=collection.tenant_id, document_id=secret.id, erase=True)
    assert "xanthipp" not in terms() and len(looked_up) == 3
    assert terms() and len(looked_up) == 3


def test_an_erasure_throws_a_count_away_that_is_going_on(
    collection: Collection, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(collection, "Mountains are high.", source_uri="kept")
    secret = ingest(collection, "Xanthippe.", source_uri="secret").document
    with tenancy.scope(collection.tenant_id):
        standing = db.rows("lexicon", collection=collection.id)[0]

    def erase() -> None:
        remove.delete(tenant_id=collection.tenant_id, document_id=secret.id, erase=True)

    monkeypatch.setattr(lexicon.db, "rows", _erasing(db.rows, erase))
    assert count(collection) == 0
    monkeypatch.undo()
    with tenancy.scope(collection.tenant_id):
        assert not Lexeme.objects.filter(collection=collection).exists()
        assert Lexicon.objects.get(collection=collection).generation == standing[2] == 0
    assert count(collection) > 0
    with tenancy.scope(collection.tenant_id):
        assert not Lexeme.objects.filter(lexeme__startswith="xanthi").exists()


def _erasing(rows: Callable[..., Any], erase: Callable[[], Any]) -> Callable[..., Any]:
    """Erases just before the count is put in place: after it was read and written."""
    done: list[bool] = []

    def run(name: str, **values: Any) -> Any:
        if name == "hold_lexicon" and values["erasures"] == 0 and not done:
            done.append(True)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(erase).result()
        return rows(name, **values)

    return run


def test_collections_are_counted_when_they_have_changed(collection: Collection, ingest: Ingest) -> None:
    ingest(collection, "Mountains are high.", source_uri="one")
    assert (collection.tenant_id, collection.id) in lexicon.due()
    tasks.count_words()
    assert (collection.tenant_id, collection.id) not in lexicon.due()
    assert names(collection, "montains") == ["one"]
    ingest(collection, "Valleys are low.", source_uri="two")
    assert (collection.tenant_id, collection.id) in lexicon.due()
    tasks.count_words()
    with tenancy.scope(collection.tenant_id):
        generations = set(Lexeme.objects.filter(collection=collection).values_list("generation", flat=True))
        assert generations == {Lexicon.objects.get(collection=collection).generation}


def test_a_deleted_collection_leaves_no_words(client: Any, collection: Collection, ingest: Ingest) -> None:
    ingest(collection, "Mountains are high.", source_uri="one")
    count(collection)
    assert client.delete(f"/api/v1/collections/{collection.slug}").status_code in (202, 204)
    with tenancy.scope(collection.tenant_id):
        assert not Lexeme.objects.filter(collection=collection).exists()
        assert not Lexicon.objects.filter(collection=collection).exists()


def test_hybrid_sums_what_both_legs_say(real_collection: Collection, ingest: Ingest) -> None:
    ingest(real_collection, "How to feed a cat: fish, twice a day.", source_uri="cat")
    ingest(real_collection, "The engine of the ferry was repaired in June.", source_uri="ferry")
    ingest(real_collection, "Ferry: the timetable of the harbour.", source_uri="timetable")
    found = hits(real_collection, "What does my kitten eat?", mode="hybrid")
    assert found[0].source_uri == "cat" and found[0].scores["lexical"] is None
    found = hits(real_collection, "ferry engine", mode="hybrid")
    assert [hit.source_uri for hit in found][:2] == ["ferry", "timetable"]
    assert found[0].score == pytest.approx(1.0) and all(0 <= hit.score <= 1 for hit in found)
    assert json.dumps([hit.scores for hit in found])
