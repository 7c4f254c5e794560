"""Warming up: PostgreSQL's memory, and a process' first questions."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection, connections

from apps.access import keys
from apps.documents.models import Collection
from apps.documents.prewarm import prewarm
from apps.generation import llm
from ragsite import embedded, warm
from tests.conftest import DATA, make_collection


def warmed() -> str:
    told = io.StringIO()
    call_command("warm", stdout=told)
    return told.getvalue()


def buffered(relation: str) -> bool:
    """Does PostgreSQL hold pages of it in memory?"""
    with psycopg.connect(embedded.superuser_url(DATA), dbname="ragsite", autocommit=True) as database:
        database.execute("CREATE EXTENSION IF NOT EXISTS pg_buffercache")
        found = database.execute(
            "SELECT count(*) FROM pg_buffercache WHERE relfilenode IN (SELECT pg_relation_filenode(relid)"
            " FROM pg_partition_tree(%s::regclass) WHERE isleaf)",
            [relation],
        ).fetchone()
    assert found is not None
    return found[0] > 0


def test_reads_indexes_and_tables(collection: Collection, ingest: Any) -> None:
    ingest(collection, "Pangolins have scales.")
    found = prewarm()
    assert found is not None and found.relations > 10 and found.bytes > 0 and found.left_out == 0
    assert all(buffered(name) for name in ("embedding_default_vectors", "documents_chunk", "documents_documentversion"))
    assert "indexes and tables" in warmed()


def test_what_does_not_fit_is_left_out(collection: Collection, ingest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(collection, "Pangolins have scales.")
    from apps.documents import prewarm as module

    monkeypatch.setitem(module.QUERIES, "shared_buffers", "SELECT 100000::bigint")
    found = prewarm()
    assert found is not None and 0 < found.bytes <= 100_000 and found.left_out > 0
    assert "do not fit shared_buffers" in warmed()


@pytest.fixture
def no_extension(database: None) -> Iterator[None]:
    with psycopg.connect(embedded.superuser_url(DATA), dbname="ragsite", autocommit=True) as superuser:
        superuser.execute("DROP EXTENSION pg_prewarm")
        yield
        superuser.execute("CREATE EXTENSION pg_prewarm WITH SCHEMA public")


def test_without_the_extension_it_says_so(no_extension: None) -> None:
    assert prewarm() is None
    assert "pg_prewarm is not installed" in warmed()


def test_a_process_asks_itself_and_leaves_nothing_open(
    database: None, ingest: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    tenant = keys.ensure_tenant(slug="default")
    ingest(make_collection(tenant, slug="warm"), "Pangolins have scales.", title="Pangolins")
    asked: list[str] = []
    llm.made.cache_clear()
    with (
        caplog.at_level("INFO", logger="ragsite.warm"),
        connection.execute_wrapper(
            lambda run, sql, params, many, context: asked.append(sql) or run(sql, params, many, context)
        ),
    ):
        warm.warm_up()
    assert "warm after" in caplog.text
    assert llm.made.cache_info().currsize == 1, "a model's client takes a second or two to import"
    assert connection.connection is None


def test_a_failure_is_not_the_process_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(space: object) -> None:
        raise RuntimeError("no model")

    monkeypatch.setattr(warm, "embedder_for", fail)
    with caplog.at_level("INFO", logger="ragsite.warm"):
        warm.warm_up()
    assert "not warmed up: no model" in caplog.text
    assert connections["default"].connection is None
