"""tenancy.snapshot: a tenant's reads in one snapshot and few round trips."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import DataError, connection, connections, transaction

from apps.access import tenancy
from apps.access.models import Tenant
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
