"""Another embedding model by `/api/v1/spaces` and by `manage.py space`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from uuid import uuid4

import httpx
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import second_space
from apps.documents.models import Collection, EmbeddingSpace, SpaceBuild
from tests.conftest import make_collection
from tests.support.second_spaces import PARAGRAPHS, Ingest


def test_the_command_takes_collections_of_several_tenants(
    collection: Collection, other_tenant: Tenant, second: EmbeddingSpace, ingest: Ingest
) -> None:
    """Each named one is somewhere, no tenant has all of them; what is retired counts among what there is to do."""
    slugs = [f"{name}-{uuid4().hex[:8]}" for name in "ab"]
    with tenancy.scope(collection.tenant_id):
        mine = Tenant.objects.get(id=collection.tenant_id)
    here, there = make_collection(mine, slug=slugs[0]), make_collection(other_tenant, slug=slugs[1])
    for text in ("The gate is red.", "The gate is green."):  # one of them is retired
        ingest(here, text)
    ingest(there, "The light is on.")
    out = StringIO()
    call_command("space", "build", second.slug, "--collections", ",".join(slugs), stdout=out)
    assert "to be built for 2 collections" in out.getvalue()
    assert f"{slugs[0]}: 2 of 2 chunks\n" in out.getvalue()
    out = StringIO()
    call_command("space", "promote", second.slug, "--collections", ",".join(slugs), stdout=out)
    assert set(out.getvalue().split(" serves ")[1].strip().split(", ")) == set(slugs)


def test_the_command_says_that_it_waits_for_a_worker(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest
) -> None:
    ingest(collection, "The gate is red.")
    with tenancy.scope(collection.tenant_id):
        (build,) = second_space.begin(space=second)
        SpaceBuild.objects.filter(id=build.id).update(lease_until=timezone.now() + timedelta(seconds=3))
        mine = Tenant.objects.get(id=collection.tenant_id).slug
    out = StringIO()
    call_command("space", "build", second.slug, "--tenant", mine, stdout=out)
    assert "docs: another process has this build, or had it when it was killed; its lease ends in" in out.getvalue()
    assert "is built" in out.getvalue()


def test_the_api_moves_collections(client: httpx.Client, collection: Collection, ingest: Ingest) -> None:
    for number, text in enumerate(PARAGRAPHS):
        ingest(collection, text, source_uri=str(number))
    labelled = {"query": "red gate", "relevant": [{"source_uri": "0"}]}
    body = {"name": "gates", "collection": "docs", "queries": [labelled]}
    assert client.post("/api/v1/evaluations/sets", json=body).status_code == 201
    slug = f"api-{uuid4().hex[:8]}"
    made = client.post("/api/v1/spaces", json={"slug": slug, "backend": "fake", "model": "fake", "dimensions": 48})
    assert made.status_code == 201 and made.json()["collections"] == []
    at = f"/api/v1/spaces/{made.json()['id']}"
    taken = client.post("/api/v1/spaces", json={"slug": slug, "dimensions": 48})
    assert (taken.status_code, taken.json()["code"]) == (409, "slug_taken")
    refused = client.post(f"{at}/promote", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "not_second")
    begun = client.post(f"{at}/build", json={"collections": ["docs"]})
    assert begun.status_code == 202 and begun.json()["collections"][0]["build"]["state"] == "running"
    early = client.post(f"{at}/promote", json={})
    assert (early.status_code, early.json()["code"]) == (409, "space_incomplete")
    assert early.json()["errors"] == [{"pointer": "/collections/docs", "detail": "6 of 6 chunks have none."}]
    second_space.drain()  # as a worker does

    shown = client.get(at).json()
    assert shown["state"] == "live" and shown["collections"][0]["role"] == "second"
    assert shown["collections"][0]["build"] | {"created_at": 0, "finished_at": 0} == {
        **{"state": "done", "embedded": 6, "error": None, "created_at": 0, "finished_at": 0}
    }
    (checked,) = client.post(f"{at}/check", json={}).json()
    assert (checked["chunks"], checked["embedded"], checked["labelled"]) == (6, 6, 1)
    assert set(checked["metrics"]["dense"]) == {"default", slug} == set(checked["known_items"])
    assert checked["known_items"][slug] == 1.0 and 0 < checked["agreement"] <= 1
    assert client.post(f"{at}/canary", json={"percent": 10}).json()["collections"][0]["canary_percent"] == 10
    assert client.post(f"{at}/canary", json={"percent": 101}).status_code == 400
    assert client.post(f"{at}/promote", json={}).json()["collections"][0]["role"] == "serving"
    assert client.get("/api/v1/collections/docs").json()["second_space"] == "default"
    found = client.post("/api/v1/search", json={"query": PARAGRAPHS[0], "mode": "dense", "explain": True}).json()
    assert found["results"][0]["text"] == PARAGRAPHS[0] and found["explain"]["dense"]["space"] == slug
    new = client.post("/api/v1/collections", json={"slug": "new", "name": "New"}).json()
    assert new["space"] == slug  # what comes later goes where the others have gone
    assert client.post(f"{at}/retire", json={}).json()["code"] == "space_in_use"
    assert client.post(f"{at}/rollback", json={}).json()["collections"][0]["role"] == "second"
    assert client.get("/api/v1/collections/docs").json()["space"] == "default"
    assert client.post(f"{at}/retire", json={"collections": ["docs"]}).json()["collections"][0]["slug"] == "new"
    assert client.get(f"/api/v1/spaces/{uuid4()}").status_code == 404
    assert any(each["slug"] == slug for each in client.get("/api/v1/spaces?limit=200").json()["results"])


def test_only_an_admin_key_moves_collections(server: str, tenant: Tenant, make_key: Callable[..., str]) -> None:
    headers = {"X-API-Key": make_key(tenant, "read", "write")}
    for method, path in (("GET", ""), ("POST", ""), ("POST", f"/{uuid4()}/promote"), ("POST", f"/{uuid4()}/check")):
        refused = httpx.request(method, f"{server}/api/v1/spaces{path}", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")


def test_the_command_moves_all_tenants_or_those_that_are_named(
    collection: Collection, other_tenant: Tenant, ingest: Ingest
) -> None:
    theirs = make_collection(other_tenant)
    for each in (collection, theirs):
        ingest(each, "The gate is red.")
    slug = f"cli-{uuid4().hex[:8]}"

    def space(verb: str, *options: str) -> str:
        out = StringIO()
        call_command("space", verb, slug, *options, stdout=out)
        return out.getvalue()

    space("create", "--backend", "fake", "--model", "fake", "--dimensions", "40")
    with tenancy.scope(collection.tenant_id):
        mine = Tenant.objects.get(id=collection.tenant_id).slug
    only = ("--tenant", mine)
    with pytest.raises(CommandError, match="another could be changed for"):
        space("promote", *only)
    with pytest.raises(CommandError, match="There is no collection 'nots'"):
        space("build", "--collections", "nots")
    with pytest.raises(CommandError, match="There is no collection 'nots'"):
        space("build", "--collections", "docs,nots")
    assert f"{slug} is built" in space("build", *only)
    told = space("check", *only)
    assert f"1 of 1 chunks have a vector in {slug}" in told and "both find the same: 1" in told
    with pytest.raises(CommandError, match="not a space of"):
        space("canary", "--percent", "5", "--tenant", other_tenant.slug)
    assert space("promote") == f"{slug} serves docs\n"
    assert space("rollback") == f"{slug} does not serve any more: docs\n"
    assert "has no vectors any more of docs" in space("retire")
    with tenancy.scope(other_tenant.id):
        theirs.refresh_from_db()
        assert theirs.second_space is None
