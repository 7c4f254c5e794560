"""Who may ask: odd, expired and revoked keys, scopes, and the things of another tenant."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
from django.utils import timezone

from apps.access import keys, tenancy
from apps.access.models import ApiKey, Tenant
from apps.documents.models import Collection
from tests.support.refusals import CHAT, DOCUMENTS, NOBODY, SEARCH, refused


def test_odd_credentials(server: str, api_key: str, other_tenant: Tenant, make_key: Callable[..., str]) -> None:
    def ask(*headers: tuple[str, str | bytes]) -> httpx.Response:
        return httpx.get(f"{server}/api/v1/collections", headers=list(headers))  # type: ignore[arg-type]

    for good in (f"bearer {api_key}", f"BEARER   {api_key}"):
        assert ask(("Authorization", good)).status_code == 200
    assert ask(("Authorization", "Basic abc"), ("X-API-Key", api_key)).status_code == 200
    for bad in ("", "Bearer", "Basic abc", api_key, f"Bearer {api_key}x", "Bearer " + "x" * 8_000, b"Bearer \xff\xe9"):
        response = ask(("Authorization", bad))
        refused(response, 401)
        assert response.headers["www-authenticate"].startswith("Bearer")
    two = (("Authorization", f"Bearer {api_key}"), ("Authorization", f"Bearer {make_key(other_tenant)}"))
    refused(ask(*two), 401, "invalid_key")
    refused(httpx.get(f"{server}/v1/models"), 401)


def test_expired_and_revoked_keys_are_refused(server: str, tenant: Tenant) -> None:
    past = timezone.now() - timedelta(seconds=1)
    _, expired = keys.create_key(tenant_id=tenant.id, name="old", scopes=["read"], expires_at=past)
    key, revoked = keys.create_key(tenant_id=tenant.id, name="lost", scopes=["read"])
    ask = f"{server}/api/v1/collections"
    assert httpx.get(ask, headers={"X-API-Key": revoked}).status_code == 200
    with tenancy.scope(tenant.id):
        keys.revoke_key(key=ApiKey.objects.get(id=key.id))
    for secret in (expired, revoked):
        refused(httpx.get(ask, headers={"X-API-Key": secret}), 401, "invalid_key")


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [
        *(("read", "POST", path) for path in (DOCUMENTS, "/api/v1/collections", f"/api/v1/jobs/{NOBODY}/retry")),
        *(("write", "GET", path) for path in (DOCUMENTS, "/v1/models", "/api/v1/jobs")),
        *(("write", "POST", path) for path in (SEARCH, CHAT, "/api/v1/answers")),
        ("read", "DELETE", f"{DOCUMENTS}/{NOBODY}"),
        ("read", "GET", "/metrics"),
    ],
)
def test_a_key_does_what_its_scopes_say(
    server: str, tenant: Tenant, make_key: Callable[..., str], scope: str, method: str, path: str
) -> None:
    headers = {"X-API-Key": make_key(tenant, scope)}
    assert refused(httpx.request(method, server + path, headers=headers), 403)["code"] == "missing_scope"


def test_a_key_has_its_requests_per_minute(server: str, tenant: Tenant, api_key: str) -> None:
    _, limited = keys.create_key(tenant_id=tenant.id, name="slow", scopes=["read"], requests_per_minute=3)
    while time.time() % 60 > 50:  # all within one minute
        time.sleep(1)
    answers = [httpx.get(f"{server}/api/v1/collections", headers={"X-API-Key": limited}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    refused(answers[-1], 429, "too_many_requests")
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    assert refused(httpx.get(f"{server}/v1/models", headers={"X-API-Key": limited}), 429)["type"]
    assert httpx.get(f"{server}/api/v1/collections", headers={"X-API-Key": api_key}).status_code == 200


def test_another_tenant_s_things_are_not_there(
    client: httpx.Client, collection: Collection, other_tenant: Tenant, make_key: Callable[..., str]
) -> None:
    made = client.post(DOCUMENTS, json={"collection": "docs", "text": "mine"}).json()
    headers = {"X-API-Key": make_key(other_tenant)}
    with httpx.Client(base_url=client.base_url, headers=headers) as other:
        for path in (f"{DOCUMENTS}/{made['id']}", f"/api/v1/jobs/{made['job']}", "/api/v1/collections/docs"):
            refused(other.get(path), 404)
        refused(other.patch(f"{DOCUMENTS}/{made['id']}", json={"title": "theirs"}), 404)
        refused(other.delete(f"{DOCUMENTS}/{made['id']}"), 404)
        refused(other.post(f"/api/v1/jobs/{made['job']}/cancel"), 404)
        refused(other.delete("/api/v1/collections/docs"), 404)
    assert client.get(f"{DOCUMENTS}/{made['id']}").json()["state"] in ("pending", "processing", "live")
