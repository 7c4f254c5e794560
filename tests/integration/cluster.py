"""Facts of a Citus cluster, proved by asking its catalogs and planner. Run by test_citus.py, not by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from django.db import connection, connections
from django.test import override_settings
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import collections, db, spaces
from apps.documents.accept import Accepted
from apps.documents.db import vector_text
from apps.documents.engines import engine_for
from apps.documents.models import Collection, Document
from apps.retrieval import refine
from apps.retrieval.filters import compile_filter
from apps.retrieval.scopes import scopes_of
from apps.retrieval.search import search
from apps.retrieval.statement import choose, compose, index_settings
from apps.retrieval.types import SearchQuery
from tests.conftest import make_collection

Put = Callable[..., Accepted]
ROWS = 8_000
SHARDED = ("blob", "chunk", "document", "documentversion", "stagedchunk", "versionrevision")


@pytest.fixture(autouse=True)
def _cluster(database: None) -> None:
    assert engine_for(connection).name == "citus", "DATABASE_URL is no Citus cluster"


def ask(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """As the owner, outside any tenant."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def found_under(plan: Any, key: str) -> Iterator[Any]:
    """Every value of a key, anywhere in a JSON plan."""
    if isinstance(plan, dict):
        for name, value in plan.items():
            if name == key:
                yield value
            yield from found_under(value, key)
    elif isinstance(plan, list):
        for value in plan:
            yield from found_under(value, key)


def test_a_document_and_all_that_hangs_on_it_live_on_one_node() -> None:
    tables = [*(f"documents_{name}" for name in SHARDED), "embedding_default"]
    found = ask(
        "SELECT logicalrelid::text, partmethod, colocationid FROM pg_dist_partition WHERE logicalrelid::text = ANY(%s)",
        tables,
    )
    assert {row[0] for row in found} == set(tables)
    assert {row[1] for row in found} == {"h"} and len({row[2] for row in found}) == 1


def test_small_tables_stay_on_the_coordinator_but_are_known_to_citus() -> None:
    tables = ["documents_collection", "documents_embeddingspace", "documents_ingestionjob", "documents_reindex"]
    found = ask("SELECT table_name::text, citus_table_type FROM citus_tables WHERE table_name::text = ANY(%s)", tables)
    assert dict(found) == dict.fromkeys(tables, "local")


@pytest.mark.parametrize("table", ["documents_chunk", "documents_document", "embedding_default"])
def test_every_shard_is_behind_a_wall_that_its_owner_can_move_it_through(table: str) -> None:
    """Rows that the owner does not see are not copied when a shard is moved (docs/adr/0017-walls-on-citus.md)."""
    command = (
        "SELECT relrowsecurity AND NOT relforcerowsecurity AND EXISTS (SELECT 1 FROM pg_policy WHERE polrelid = c.oid)"
        " FROM pg_class c WHERE oid = '%s'::regclass"
    )
    found = ask("SELECT success, result FROM run_command_on_shards(%s, %s)", table, command)
    assert len(found) > 1 and set(found) == {(True, "t")}


def test_the_tenant_reaches_the_workers_and_leaves_them_with_the_transaction(
    collection: Collection, other_tenant: Tenant, ingest: Put
) -> None:
    for number in range(8):
        ingest(collection, f"Walled text {number}.", source_uri=str(number))
    with tenancy.scope(collection.tenant_id):
        assert Document.objects.count() == 8
    assert Document.objects.count() == 0
    with tenancy.scope(other_tenant.id):
        assert Document.objects.count() == 0


def test_accepting_prepares_on_the_workers_before_it_commits(collection: Collection, put: Put) -> None:
    """Document on a worker and job on the coordinator: a one-phase commit could keep one without the other."""
    records = "SELECT count(*) FROM pg_dist_transaction"  # kept until the next recovery, a minute later
    before = ask(records)[0][0]
    put(collection, "Both or nothing.")
    assert ask(records)[0][0] > before


def plan_of(collection: Collection, query: SearchQuery, vector: list[float] | None, *settings: str) -> Any:
    with tenancy.scope(collection.tenant_id, repeatable_read=True), connection.cursor() as cursor:
        scopes = scopes_of([collection.slug])
        statement, parameters = compose(scopes, query, vector, choose(scopes, query))
        tenancy.set_local(index_settings(scopes, query))
        for setting in ("SET LOCAL citus.explain_all_tasks = on", *settings):
            cursor.execute(setting)
        cursor.execute("EXPLAIN (FORMAT JSON) " + statement, parameters)
        found = cursor.fetchone()[0]
    return json.loads(found) if isinstance(found, str) else found


def test_each_shard_takes_its_own_nearest_through_its_own_index(tenant: Tenant) -> None:
    slug = f"knn-{uuid4().hex[:8]}"
    space = spaces.create(slug=slug, backend="fake", model="fake", dimensions=8)
    collection = make_collection(tenant, space=slug)
    vectors = np.random.default_rng(7).standard_normal((ROWS, 8))
    row = "(gen_random_uuid(), gen_random_uuid(), %s, %s, true, %s)"
    with tenancy.scope(tenant.id), connection.cursor() as cursor:
        for first in range(0, ROWS, 1_000):
            part = [vector_text(one.tolist()) for one in vectors[first : first + 1_000]]
            cursor.execute(
                f"INSERT INTO {space.table} VALUES " + ", ".join([row] * len(part)),
                [value for one in part for value in (tenant.id, collection.id, one)],
            )
        Collection.objects.filter(id=collection.id).update(chunks=ROWS)
    with connections["owner"].cursor() as cursor:
        cursor.execute(f"ANALYZE {space.table}")
    # A thousand rows a shard are sorted faster than searched; a shard that has the index must be able to use it.
    plan = plan_of(collection, SearchQuery("x", mode="dense"), vectors[0].tolist(), "SET LOCAL enable_sort = off")
    shards = ask("SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = %s::regclass", space.table)[0][0]
    tasks = [
        task
        for job in found_under(plan, "Job")
        for task in job["Tasks"]
        if any(name.startswith(space.table) for name in found_under(task, "Relation Name"))
    ]
    assert len(tasks) == shards > 1
    for task in tasks:
        top = next(found_under(task, "Plan"))
        assert top["Node Type"] == "Limit", "the limit must be applied where the rows are"
        [scan] = top["Plans"]
        assert scan["Node Type"] == "Index Scan" and "Order By" in scan and "_vectors_" in scan["Index Name"]


def test_a_search_is_one_statement_and_finds_the_live_version_only(collection: Collection, ingest: Put) -> None:
    for number in range(12):
        ingest(collection, f"Note {number} speaks of subject{number}.", source_uri=f"n{number}")
    ingest(collection, "Note 3 was rewritten about subject3 and nothing else.", source_uri="n3")
    for mode in ("dense", "lexical", "hybrid"):
        hits = search(tenant_id=collection.tenant_id, query=SearchQuery("subject3", mode=mode, k=20)).hits
        mine = [hit for hit in hits if hit.source_uri == "n3"]
        assert len(mine) == 1 and mine[0].version == 2 and "rewritten" in mine[0].text


@pytest.mark.parametrize("scanned", [0, 5_000], ids=["index", "scan"])
@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_citus_takes_every_kind_of_search(collection: Collection, ingest: Put, mode: str, scanned: int) -> None:
    """A statement that one Postgres runs may be none that Citus can spread over its shards."""
    document = ingest(collection, "The harbour opens at nine.", source_uri="n", metadata={"kind": "note"}).document
    with tenancy.scope(collection.tenant_id):
        now = db.clock()
    kinds: list[dict[str, Any]] = [
        {},
        {"diversify": 0.5},
        {"expand": 1, "explain": True},
        {"filter": compile_filter({"metadata.kind": "note"})},
        {"filter": compile_filter({"title": {"$ne": "another"}}), "diversify": 0.5},
        {"as_of": now},
        {"as_of": now, "filter": compile_filter({"metadata.kind": "note"}), "explain": True},
        {"pinned": (document.id, 1), "diversify": 0.5, "expand": 1},
    ]
    with override_settings(EXACT_SCAN_ROWS=scanned):
        for values in kinds:
            query = SearchQuery("harbour", mode=mode, **values)
            hits = search(tenant_id=collection.tenant_id, query=query).hits
            assert [hit.source_uri for hit in hits] == ["n"], values


def test_results_are_diversified_widened_and_explained(tenant: Tenant, ingest: Put) -> None:
    collection = make_collection(tenant, chunking={"max_tokens": 16, "overlap_tokens": 0})
    lines = [f"Sentence number {at} speaks of subject{at} and of nothing else at all." for at in range(6)]
    for number in range(6):
        ingest(collection, "\n\n".join(lines), source_uri=f"n{number}")
    for mode in ("dense", "lexical", "hybrid"):
        query = SearchQuery("subject3", mode=mode, k=3, diversify=0.5, expand=1, explain=True)
        found = search(tenant_id=collection.tenant_id, query=query)
        assert len(found.hits) == 3 and found.hits[0].text == "\n\n".join(lines[2:5]) and found.explain
    with tenancy.scope(tenant.id):
        hits = refine.still_there(found.hits, query)
        assert hits == found.hits and refine.still_there(hits, replace(query, as_of=timezone.now())) == hits


def test_removing_a_collection_removes_it_from_every_shard(collection: Collection, ingest: Put) -> None:
    for number in range(8):
        ingest(collection, f"Passing text {number}.", source_uri=str(number))
    with tenancy.scope(collection.tenant_id):
        collections.remove(collection=collection)
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        assert Collection.objects.count() == Document.objects.count() == 0
        cursor.execute(f"SELECT count(*) FROM {collection.space.table}")
        assert cursor.fetchone()[0] == 0
