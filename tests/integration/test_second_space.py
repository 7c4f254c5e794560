"""Another embedding model without a pause: built beside the one that serves, promoted, taken back, let go of."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.problems import Problem
from apps.documents import collections, embed, erasure, remove, second_space, spaces, vector_index
from apps.documents.models import Collection, EmbeddingSpace, SpaceBuild
from tests.conftest import make_collection
from tests.support.second_spaces import PARAGRAPHS, Ingest, build_for, coverage_of, find, promote_for, texts_of


def test_a_second_space_is_built_and_promoted_and_taken_back_and_retired(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest
) -> None:
    first = collection.space
    for number, text in enumerate(PARAGRAPHS):
        ingest(collection, text, source_uri=str(number))
    before = find(collection, PARAGRAPHS[0])
    build = build_for(collection, second)
    assert (build.state, build.embedded, coverage_of(collection, second)) == ("done", 6, (6, 6))
    assert vector_index.is_indexed(second)
    assert texts_of(find(collection, PARAGRAPHS[0], second=True))[0] == PARAGRAPHS[0]

    promote_for(collection, second)
    assert (collection.space, collection.second_space) == (second, first)
    after = find(collection, PARAGRAPHS[0])
    assert texts_of(after)[0] == PARAGRAPHS[0] and not after.cached
    assert after.hits[1].scores["dense"] != before.hits[1].scores["dense"]  # by other vectors
    assert after.snapshot["docs"] > before.snapshot["docs"]

    with tenancy.scope(collection.tenant_id):
        second_space.rollback(space=second)
        collection.refresh_from_db()
    assert (collection.space, collection.second_space) == (first, second)
    assert find(collection, PARAGRAPHS[0]).hits[1].scores == before.hits[1].scores

    with tenancy.scope(collection.tenant_id):
        second_space.retire(space=second)
        collection.refresh_from_db()
    second_space.settle(second)
    assert collection.second_space is None and second.state == EmbeddingSpace.State.RETIRED
    assert texts_of(find(collection, PARAGRAPHS[0]))[0] == PARAGRAPHS[0]
    build_for(collection, second)  # and once more, with what is left of it
    promote_for(collection, second)


def test_what_is_written_meanwhile_is_in_both(collection: Collection, second: EmbeddingSpace, ingest: Ingest) -> None:
    first = ingest(collection, "The gate is red.", source_uri="a").document
    ingest(collection, "The crane is blue.", source_uri="b")
    with tenancy.scope(collection.tenant_id):
        (build,) = second_space.begin(space=second)
    ingest(collection, "The gate is green.", source_uri="a")  # retires a chunk that has no vector there yet
    ingest(collection, "The light is on.", source_uri="c")
    assert coverage_of(collection, second) == (4, 2)
    second_space.work(tenant_id=collection.tenant_id, build_id=build.id)
    assert coverage_of(collection, second) == (4, 4)  # the retired one, too: for the past
    second_space.finish(second)
    promote_for(collection, second)
    assert texts_of(find(collection, "The gate is green."))[0] == "The gate is green."
    assert set(texts_of(find(collection, "gate"))) == {"The gate is green.", "The crane is blue.", "The light is on."}
    ingest(collection, "The gate is white.", source_uri="a")
    with tenancy.scope(collection.tenant_id):
        remove.delete(tenant_id=collection.tenant_id, document_id=first.id)
        second_space.rollback(space=second)
        collection.refresh_from_db()
    assert set(texts_of(find(collection, "gate"))) == {"The crane is blue.", "The light is on."}


def test_nothing_is_promoted_while_a_chunk_has_no_vector(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest
) -> None:
    for number, text in enumerate(PARAGRAPHS):
        ingest(collection, text, source_uri=str(number))
    with tenancy.scope(collection.tenant_id), pytest.raises(Problem) as refused:
        second_space.promote(space=second)
    assert refused.value.code == "not_second"
    build = build_for(collection, second)
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        cursor.execute(f'SELECT chunk_id FROM "{second.table}" ORDER BY chunk_id LIMIT 1')
        cursor.execute(f'DELETE FROM "{second.table}" WHERE chunk_id = %s', cursor.fetchone())
    for verb in (second_space.promote, lambda **values: second_space.canary(percent=5, **values)):
        with tenancy.scope(collection.tenant_id), pytest.raises(Problem) as refused:
            verb(space=second)
        assert (refused.value.status_code, refused.value.code) == (409, "space_incomplete")
        assert refused.value.errors[0]["detail"] == "1 of 6 chunks have none."
    assert build.state == "done"
    build_for(collection, second)
    promote_for(collection, second)


def test_an_erased_document_leaves_nothing_in_either_space(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest
) -> None:
    document = ingest(collection, "The gate is red.").document
    build_for(collection, second)
    with tenancy.scope(collection.tenant_id):
        remove.delete(tenant_id=collection.tenant_id, document_id=document.id, erase=True)
        assert not any(erasure.traces(document.id).values())
    assert coverage_of(collection, second) == (0, 0)


def test_a_collection_with_two_spaces_can_be_deleted(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest
) -> None:
    ingest(collection, "The gate is red.")
    build_for(collection, second)
    with tenancy.scope(collection.tenant_id):
        collections.remove(collection=collection)
        with connection.cursor() as cursor:
            cursor.execute(f'SELECT count(*) FROM "{second.table}"')
            assert cursor.fetchone()[0] == 0


def test_only_a_promotion_is_taken_back(collection: Collection, second: EmbeddingSpace, ingest: Ingest) -> None:
    first = collection.space
    ingest(collection, "The gate is red.")
    third = spaces.create(slug=f"third-{uuid4().hex[:8]}", backend="fake", model="fake", dimensions=32)

    def back(space: EmbeddingSpace) -> None:
        with tenancy.scope(collection.tenant_id):
            second_space.rollback(space=space)

    def refused(space: EmbeddingSpace) -> None:
        with pytest.raises(Problem) as caught:
            back(space)
        assert (caught.value.status_code, caught.value.code) == (409, "not_promoted")
        with tenancy.scope(collection.tenant_id):
            collection.refresh_from_db()
        assert collection.space == space

    build_for(collection, second)
    refused(first)
    promote_for(collection, second)
    build_for(collection, first)  # complete already; the promotion is still one
    back(second)
    refused(first)
    promote_for(collection, second)
    with tenancy.scope(collection.tenant_id):
        second_space.retire(space=first)
    build_for(collection, third)
    refused(second)
    promote_for(collection, third)
    back(third)
    refused(second)


def test_a_third_space_is_refused(collection: Collection, second: EmbeddingSpace) -> None:
    third = spaces.create(slug=f"third-{uuid4().hex[:8]}", backend="fake", model="fake", dimensions=32)
    with tenancy.scope(collection.tenant_id):
        assert len(second_space.begin(space=second)) == 1
        assert second_space.begin(space=second)[0].state == "running"  # asked again, nothing more
        with pytest.raises(Problem) as refused:
            second_space.begin(space=third)
        assert refused.value.code == "second_space_taken"
        with pytest.raises(Problem) as refused:
            second_space.retire(space=collection.space)
        assert refused.value.code == "space_in_use"
        second_space.retire(space=second)
        assert not SpaceBuild.objects.filter(state="running").exists()


def test_a_canary_answers_its_share(collection: Collection, second: EmbeddingSpace, ingest: Ingest) -> None:
    for number, text in enumerate(PARAGRAPHS):
        ingest(collection, text, source_uri=str(number))
    build_for(collection, second)
    questions = [f"which harbour {number}" for number in range(200)]

    def scores(**values: Any) -> dict[str, list[Any]]:
        return {text: [hit.scores for hit in find(collection, text, **values).hits] for text in questions}

    by_first, by_second = scores(), scores(second=True)
    assert all(by_first[text] != by_second[text] for text in questions)
    with tenancy.scope(collection.tenant_id):
        second_space.canary(space=second, percent=30)
    now = scores()
    assert all(now[text] in (by_first[text], by_second[text]) for text in questions)
    assert 0.2 < sum(now[text] == by_second[text] for text in questions) / len(questions) < 0.4
    assert now == scores()  # always the same ones
    with tenancy.scope(collection.tenant_id):
        second_space.canary(space=second, percent=0)
    assert scores() == by_first


@pytest.fixture
def large(other_tenant: Tenant, ingest: Ingest) -> Iterator[Collection]:
    """Another tenant's collection, as if it were large."""
    theirs = make_collection(other_tenant)
    ingest(theirs, PARAGRAPHS[0])
    with tenancy.scope(other_tenant.id):
        Collection.objects.filter(id=theirs.id).update(chunks=1_000_000)
    yield theirs
    with tenancy.scope(other_tenant.id):
        Collection.objects.filter(id=theirs.id).update(chunks=1)  # other tests count them


def _begin(collection: Collection, space: EmbeddingSpace) -> SpaceBuild:
    with tenancy.scope(collection.tenant_id):
        return second_space.begin(space=space)[0]


@pytest.mark.parametrize("runs_again", [False, True])
def test_a_build_leaves_the_index_that_answers_for_another_tenant(
    collection: Collection, large: Collection, second: EmbeddingSpace, ingest: Ingest, runs_again: bool
) -> None:
    """Also where that one's build runs again, as after each `space build` of all tenants."""
    ingest(collection, PARAGRAPHS[0])
    build_for(collection, second)
    with tenancy.scope(collection.tenant_id):
        second_space.canary(space=second, percent=100)
    if runs_again:
        assert _begin(collection, second).state == "running"
    assert second_space.work(tenant_id=large.tenant_id, build_id=_begin(large, second).id)
    second.refresh_from_db()
    assert second.state == EmbeddingSpace.State.LIVE and vector_index.is_indexed(second)
    promote_for(collection, second)


def test_a_build_takes_no_index_away_from_who_is_promoted_at_that_moment(
    collection: Collection, large: Collection, second: EmbeddingSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other tenant's collection is empty, and nothing is missing there before its build has begun."""
    _begin(collection, second)
    build, change, threads = _begin(large, second), spaces.set_state, []

    def promote() -> None:
        with suppress(Problem):
            promote_for(collection, second)
        connections.close_all()  # this thread's

    def promote_meanwhile(*args: Any, **values: Any) -> None:
        change(*args, **values)
        threads.append(threading.Thread(target=promote))
        threads[0].start()
        threads[0].join(timeout=1)

    monkeypatch.setattr(spaces, "set_state", promote_meanwhile)
    assert second_space.work(tenant_id=large.tenant_id, build_id=build.id)
    threads[0].join()
    with tenancy.scope(collection.tenant_id):
        collection.refresh_from_db()
    assert vector_index.is_indexed(second) or collection.space != second


def test_an_index_that_is_taken_away_after_it_was_built_is_built_again(
    collection: Collection, large: Collection, second: EmbeddingSpace, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is written down that it was, the one collection that has the space gives it up, and another begins."""
    ingest(collection, PARAGRAPHS[0])
    build, made = _begin(collection, second), vector_index.index_concurrently
    spaces.begin_filling(second, coming=1_000_000)
    assert second_space.work(tenant_id=collection.tenant_id, build_id=build.id)

    def change_meanwhile(space: EmbeddingSpace) -> None:
        made(space)
        with tenancy.scope(collection.tenant_id):
            second_space.retire(space=second)
        spaces.set_state(second, EmbeddingSpace.State.LIVE)  # as another worker, that has built it as well, may
        assert second_space.work(tenant_id=large.tenant_id, build_id=_begin(large, second).id)

    with monkeypatch.context() as patched:
        patched.setattr(vector_index, "index_concurrently", change_meanwhile)
        second_space.finish(second)
    assert not vector_index.is_indexed(second)
    second_space.drain()
    assert vector_index.is_indexed(second)
    promote_for(large, second)


def test_a_space_is_retired_while_its_index_is_built(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest
) -> None:
    """The build of an index and the emptying of its table would wait for one another."""
    ingest(collection, "The gate is red.")
    with tenancy.scope(collection.tenant_id):
        (build,) = second_space.begin(space=second)
    spaces.begin_filling(second, coming=1_000_000)
    assert second_space.work(tenant_id=collection.tenant_id, build_id=build.id)
    assert not vector_index.is_indexed(second)
    with vector_index.index_lock(connections["owner"], second):  # as whoever builds it holds it
        with tenancy.scope(collection.tenant_id):
            second_space.retire(space=second)

        def settle() -> None:
            second_space.settle(second)
            connections.close_all()

        retired = threading.Thread(target=settle)
        retired.start()
        retired.join(timeout=20)
        assert not retired.is_alive(), "it waits for an index of hours"
        second.refresh_from_db()
        assert second.state != EmbeddingSpace.State.RETIRED
    assert second_space.is_due()
    second_space.drain()
    second.refresh_from_db()
    assert second.state == EmbeddingSpace.State.RETIRED


def test_a_build_of_what_is_retired_meanwhile_does_not_say_that_it_is_built(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(collection, "The gate is red.")
    made = embed.new_vectors

    def retire_meanwhile(space: EmbeddingSpace, texts: Any) -> Any:
        if space == second:
            with tenancy.scope(collection.tenant_id):
                second_space.retire(space=second)
            second_space.settle(second)
        return made(space, texts)

    monkeypatch.setattr(embed, "new_vectors", retire_meanwhile)
    with tenancy.scope(collection.tenant_id):
        mine = Tenant.objects.get(id=collection.tenant_id).slug
    with pytest.raises(CommandError, match="given up"):
        call_command("space", "build", second.slug, "--tenant", mine)
    second_space.drain()
    second.refresh_from_db()
    assert second.state == EmbeddingSpace.State.RETIRED


def test_another_tenants_collections_stay_as_they_are(
    collection: Collection, other_tenant: Tenant, second: EmbeddingSpace, ingest: Ingest
) -> None:
    theirs = make_collection(other_tenant)
    ingest(theirs, "The gate is red.")
    ingest(collection, "The gate is red.")
    build_for(collection, second)
    promote_for(collection, second)
    with tenancy.scope(other_tenant.id):
        theirs.refresh_from_db()
    assert theirs.space != second and theirs.second_space is None
    assert texts_of(find(theirs, "gate")) == ["The gate is red."]
