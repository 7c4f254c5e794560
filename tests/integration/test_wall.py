"""Invariant I7: tenants are walls, in the database itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import DatabaseError, ProgrammingError, connection, connections, transaction

from apps.access import keys, tenancy
from apps.access.models import ApiKey, Tenant
from apps.documents.engines import engine_for
from apps.documents.models import Collection, EmbeddingSpace
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery
from tests.conftest import make_collection

#: Tables of Django's own or without any tenant's data; every other table must be walled.
OPEN = {
    *("django_migrations", "django_content_type", "django_session", "auth_group", "auth_group_permissions"),
    *("auth_permission", "documents_embeddingspace"),
    # Beat's clock: crontabs, and ids of what is due by them.
    *(f"django_celery_beat_{name}" for name in ("periodictask", "periodictasks", "crontabschedule")),
    *(f"django_celery_beat_{name}" for name in ("intervalschedule", "solarschedule", "clockedschedule")),
}


def tables() -> dict[str, tuple[bool, bool, str]]:
    """{table: (row security enabled, forced, owner)} of the public schema, partitions left out."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, relrowsecurity, relforcerowsecurity, pg_get_userbyid(relowner) FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
        )
        return {row[0]: row[1:] for row in cursor.fetchall()}


def sharded() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_dist_partition JOIN pg_class ON oid = logicalrelid WHERE partmethod = 'h'"
        )
        return {row[0] for row in cursor.fetchall()}


def test_every_tenant_table_is_behind_a_forced_wall(database: None) -> None:
    found = tables()
    assert {
        "documents_document",
        "documents_chunk",
        "embedding_default",
        "access_apikey",
        "access_user",
    } <= set(found)
    unforced = sharded() if engine_for(connection).name == "citus" else set()  # docs/adr/0017-walls-on-citus.md
    for name, (enabled, forced, _) in found.items():
        if name not in OPEN:
            assert enabled and (forced or name in unforced), f"{name} has no wall"


def test_the_application_owns_nothing_and_cannot_look_over_the_wall(database: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
        name, is_super, bypasses = cursor.fetchone()
    assert name == settings.DATABASES["default"]["USER"] and not is_super and not bypasses
    assert all(owner != name for _, _, owner in tables().values())
    call_command("check", databases=["default"])


def test_a_raw_query_without_a_tenant_returns_nothing(collection: Collection, ingest: Callable) -> None:
    ingest(collection, "Walled text.")
    walled = [name for name in tables() if name not in OPEN]
    with connection.cursor() as cursor:
        for name in walled:
            cursor.execute(f'SELECT count(*) FROM "{name}"')
            assert cursor.fetchone()[0] == 0, f"{name} shows rows without a tenant"
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM documents_chunk")
        assert cursor.fetchone()[0] == 1


def test_a_partition_cannot_be_queried_around_its_parents_policy(collection: Collection, ingest: Callable) -> None:
    if engine_for(connection).name == "citus":
        pytest.skip("shards have walls of their own: cluster.py")
    ingest(collection, "Walled text.")
    denied = pytest.raises(ProgrammingError, match="permission denied")
    with denied, tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM documents_chunk_p0")


def test_what_the_owner_keeps_the_application_may_only_read(tenant: Tenant) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"), tenancy.scope(tenant.id):
        EmbeddingSpace.objects.update(revision="forged")
    with pytest.raises(ProgrammingError, match="permission denied"), tenancy.scope(tenant.id):
        EmbeddingSpace.objects.all()._raw_delete("default")
    assert EmbeddingSpace.objects.exclude(revision="forged").exists()


def test_the_setting_ends_with_its_transaction(tenant: Tenant) -> None:
    with tenancy.scope(tenant.id):
        assert Tenant.objects.count() == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('ragsite.tenant', true)")
        assert not cursor.fetchone()[0]
    with pytest.raises(transaction.TransactionManagementError):
        tenancy.enter(tenant.id)


def test_a_scope_inside_another_gives_the_outer_tenant_back(tenant: Tenant, other_tenant: Tenant) -> None:
    with tenancy.scope(tenant.id):
        with tenancy.scope(other_tenant.id):
            assert Tenant.objects.get().id == other_tenant.id
        assert Tenant.objects.get().id == tenant.id
        with pytest.raises(ZeroDivisionError), tenancy.scope(other_tenant.id):
            _ = 1 / 0
        assert Tenant.objects.get().id == tenant.id


def test_one_tenant_cannot_write_into_another(tenant: Tenant, other_tenant: Tenant) -> None:
    with pytest.raises(DatabaseError, match="row-level security"), tenancy.scope(tenant.id):
        ApiKey.objects.create(tenant_id=other_tenant.id, name="x", prefix="x", sha256=b"x" * 32, scopes=["read"])


def test_searches_see_their_own_tenant_only(collection: Collection, other_tenant: Tenant, ingest: Callable) -> None:
    ingest(collection, "A recipe for plum cake with cinnamon.")
    theirs = make_collection(other_tenant)
    ingest(theirs, "A different recipe for plum cake without cinnamon.")
    for tenant_id, expected in (
        (collection.tenant_id, "with cinnamon"),
        (other_tenant.id, "without cinnamon"),
    ):
        for mode in ("dense", "lexical", "hybrid"):
            hits = search(tenant_id=tenant_id, query=SearchQuery("plum cake recipe", mode=mode)).hits
            assert len(hits) == 1 and expected in hits[0].text


def test_equal_texts_of_two_tenants_share_no_vector(
    collection: Collection, other_tenant: Tenant, ingest: Callable
) -> None:
    from .test_ingest import embedded_texts

    ingest(collection, "The very same sentence in two houses.")
    before = embedded_texts()
    ingest(make_collection(other_tenant), "The very same sentence in two houses.")
    assert embedded_texts() == before + 1, "a reused vector would tell one tenant by its speed what another has"


def test_the_owner_is_behind_the_wall_as_well(collection: Collection, ingest: Callable) -> None:
    if engine_for(connection).name == "citus":
        pytest.skip("the owner moves shards: docs/adr/0017-walls-on-citus.md")
    ingest(collection, "Walled text.")
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM documents_chunk")
        assert cursor.fetchone()[0] == 0


def test_a_key_is_kept_as_a_hash_and_ends_when_revoked(tenant: Tenant) -> None:
    key, secret = keys.create_key(tenant_id=tenant.id, name="k", scopes=["read"])
    assert secret.encode() not in bytes(key.sha256) and secret.startswith(key.prefix)
    caller = keys.recognise(secret)
    assert caller is not None and caller.tenant_id == tenant.id and caller.scopes == {"read"}
    with tenancy.scope(tenant.id):
        keys.revoke_key(key=key)
    assert keys.recognise(secret) is None
