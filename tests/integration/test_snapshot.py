"""tenancy.snapshot: a tenant's reads in one snapshot and few round trips."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import psycopg
import pytest
from django.db import DataError, connection, connections, transaction

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.problems import Problem
from apps.access.sql import execute
from apps.documents.models import Collection
from tests.conftest import make_collection

SLUGS = "SELECT slug FROM documents_collection ORDER BY slug"


def slugs() -> list[str]:
    return [row[0] for row in execute(SLUGS, {}).fetchall()]


def test_shows_the_rows_of_its_tenant_alone(tenant: Tenant, other_tenant: Tenant) -> None:
    make_collection(tenant, slug="ours")
    make_collection(other_tenant, slug="theirs")
    with tenancy.snapshot(tenant.id):
        assert slugs() == ["ours"]
        assert Collection.objects.get().slug == "ours"  # the ORM reads in it as well
    with tenancy.snapshot(other_tenant.id):
        assert slugs() == ["theirs"]


def test_its_tenant_ends_with_it(collection: Collection) -> None:
    with tenancy.snapshot(collection.tenant_id):
        assert slugs()
    assert tenancy.current() == ""
    assert slugs() == []


def test_does_not_see_what_is_committed_meanwhile(tenant: Tenant) -> None:
    make_collection(tenant, slug="early")
    with tenancy.snapshot(tenant.id):
        assert slugs() == ["early"]
        with ThreadPoolExecutor(1) as elsewhere:  # another thread has another connection
            elsewhere.submit(make_collection, tenant, slug="late").result()
            elsewhere.submit(connections.close_all).result()
        assert slugs() == ["early"]
    with tenancy.snapshot(tenant.id):
        assert slugs() == ["early", "late"]


def test_nothing_is_sent_before_rows_are_fetched(collection: Collection) -> None:
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as other:

        def state() -> str:
            asked = "SELECT state FROM pg_stat_activity WHERE pid = %s"
            return other.execute(asked, [connection.connection.info.backend_pid]).fetchone()[0]

        with tenancy.snapshot(collection.tenant_id):
            waiting = [execute(SLUGS, {}) for _ in range(3)]
            time.sleep(0.1)
            assert state() == "idle"
            assert waiting[0].fetchall() == [(collection.slug,)]
            assert state() != "idle"
            assert [each.fetchall() for each in waiting[1:]] == [[(collection.slug,)]] * 2
        assert state() == "idle"


def test_more_than_the_socket_takes_at_once(tenant: Tenant) -> None:
    long = "x" * 2**22
    with tenancy.snapshot(tenant.id):
        sent = [execute("SELECT %(long)s::text || %(number)s::text", {"long": long, "number": n}) for n in range(4)]
        assert [each.fetchone() for each in sent] == [(f"{long}{n}",) for n in range(4)]


def test_a_failure_shows_as_djangos_error_and_leaves_the_connection_usable(collection: Collection) -> None:
    def fail(fetched: bool) -> None:
        with tenancy.snapshot(collection.tenant_id):
            failing = execute("SELECT 1 / %(zero)s::int", {"zero": 0})
            if fetched:
                failing.fetchall()

    for fetched in (True, False):
        with pytest.raises(DataError):
            fail(fetched)
        assert tenancy.current() == ""
        with tenancy.snapshot(collection.tenant_id):
            assert slugs() == [collection.slug]


def test_an_exception_of_the_block_ends_it(collection: Collection) -> None:
    def fail() -> None:
        with tenancy.snapshot(collection.tenant_id):
            slugs()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert tenancy.current() == ""


def test_one_inside_another_goes_on_after_rows_were_fetched(collection: Collection) -> None:
    now = "SELECT pg_current_snapshot()::text, pg_backend_pid(), now()"
    with tenancy.snapshot(collection.tenant_id):
        first = execute(now, {}).fetchone()
        for _ in range(2):
            assert tenancy.is_open()
            with tenancy.snapshot(collection.tenant_id):
                assert execute(now, {}).fetchone() == first
        assert tenancy.current() == str(collection.tenant_id)
    assert not tenancy.is_open() and tenancy.current() == ""


def test_an_exception_does_not_forget_what_was_prepared(collection: Collection) -> None:
    def prepared() -> int:
        asked = "SELECT count(*) FROM pg_prepared_statements WHERE statement = %(own)s"
        return execute(asked, {"own": SLUGS}).fetchone()[0]

    def fail(error: Exception) -> None:
        with tenancy.snapshot(collection.tenant_id):
            slugs()
            raise error

    fetched = slugs() == []
    assert fetched and prepared() == 1
    for error in (KeyError(), Problem(404, "unknown_collection", "There is none.")):
        with pytest.raises(type(error)):
            fail(error)
        assert prepared() == 1
        assert not tenancy.is_open() and tenancy.current() == ""


def test_failures_between_many_statements(tenant: Tenant) -> None:
    """More of them than psycopg keeps prepared."""

    def ask(number: int, *, fail: bool) -> None:
        with tenancy.snapshot(tenant.id):
            one = execute(f"SELECT {number} + %(x)s::int", {"x": 1})
            if fail:
                execute("SELECT 1 / %(zero)s::int", {"zero": 0})
            two = execute(f"SELECT {number} + %(x)s::int, 1", {"x": 2})
            assert (two.fetchone(), one.fetchone()) == ((number + 2, 1), (number + 1,))

    for number in range(130):
        if number % 3 == 0:
            with pytest.raises(DataError):
                ask(number, fail=True)
        else:
            ask(number, fail=False)
    for number in range(130):
        ask(number, fail=False)


def test_one_inside_another_or_inside_a_scope_is_the_same(collection: Collection, other_tenant: Tenant) -> None:
    with tenancy.snapshot(collection.tenant_id):
        with tenancy.snapshot(collection.tenant_id):
            assert slugs()
        assert slugs()
    with tenancy.scope(collection.tenant_id):
        with tenancy.snapshot(collection.tenant_id):
            assert slugs()
        assert connection.in_atomic_block
    for outer in (tenancy.snapshot, tenancy.scope):
        with outer(collection.tenant_id), pytest.raises(transaction.TransactionManagementError):
            tenancy.snapshot(other_tenant.id).__enter__()


def _expecting(tenant: Tenant, name: str) -> AbstractContextManager[None]:
    return tenancy.expecting("SELECT name FROM access_tenant WHERE id = %(id)s", {"id": tenant.id}, (name,))


def test_a_snapshot_reads_what_is_expected_of_it(collection: Collection, tenant: Tenant) -> None:
    with _expecting(tenant, tenant.name):
        with tenancy.snapshot(tenant.id):
            assert slugs()
        with tenancy.snapshot(tenant.id):  # the first one has read it
            Tenant.objects.filter(id=tenant.id).update(name="changed")
    with pytest.raises(tenancy.Unexpected), _expecting(tenant, tenant.name), tenancy.snapshot(tenant.id):
        assert slugs()
    assert tenancy.current() == ""


@pytest.mark.parametrize("fetched", [True, False])
def test_what_is_unexpected_hides_what_else_went_wrong(collection: Collection, tenant: Tenant, fetched: bool) -> None:
    def fail(name: str) -> None:
        with _expecting(tenant, name), tenancy.snapshot(tenant.id):
            slugs()
            failing = execute("SELECT 1 / %(zero)s::int", {"zero": 0})
            if fetched:
                failing.fetchall()

    for name, error in (("somebody else", tenancy.Unexpected), (tenant.name, DataError)):
        with pytest.raises(error):
            fail(name)
        assert tenancy.current() == ""


def test_what_no_snapshot_has_read_is_unexpected(tenant: Tenant) -> None:
    with pytest.raises(tenancy.Unexpected), _expecting(tenant, tenant.name):
        assert not tenancy.current()
    with pytest.raises(tenancy.Unexpected), _expecting(tenant, tenant.name):
        raise KeyError
    with tenancy.snapshot(tenant.id):  # and nothing is expected any more
        assert slugs() == []


def test_a_session_that_was_ended_is_as_if_nothing_had_been_read(collection: Collection, tenant: Tenant) -> None:
    """The search begins anew then, in another session."""

    def ended() -> None:
        with _expecting(tenant, tenant.name), tenancy.snapshot(tenant.id):
            with psycopg.connect(**connection.get_connection_params(), autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.connection.info.backend_pid])
            slugs()

    with pytest.raises(tenancy.Unexpected):
        ended()
    with tenancy.snapshot(tenant.id):
        assert slugs()
