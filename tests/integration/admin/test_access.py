"""Keys, curators, groups, and what each may do."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse

from apps.access import keys, tenancy
from apps.access.models import ApiKey, Tenant, User
from apps.documents.models import Document, IngestionJob
from tests.support.desk import PASSWORD, in_tenant, make_curator, sign_in, text_of, url


def test_a_key_is_shown_once_and_works_until_it_is_revoked(desk: Client, tenant: Tenant) -> None:
    form = {"name": "bot", "scopes": ["read", "write"], "requests_per_minute": "60", "tokens_per_minute": "9000"}
    made = desk.post(url("add", ApiKey), form, follow=True)
    [secret] = re.findall(r"rs_[\w-]{43}", text_of(made))
    caller = keys.recognise(secret)
    assert caller is not None and caller.tenant_id == tenant.id
    assert (caller.scopes, caller.requests_per_minute) == ({"read", "write"}, 60)
    assert caller.tokens_per_minute == 9000
    key = in_tenant(tenant, lambda: ApiKey.objects.get(pk=caller.key_id))
    for path in (url("changelist", ApiKey), url("change", ApiKey, key.pk), url("history", ApiKey, key.pk), "/admin/"):
        assert secret not in text_of(desk.get(path))
    assert desk.post(url("change", ApiKey, key.pk), {"name": "x", "scopes": ["admin"]}).status_code == 403
    assert desk.post(url("delete", ApiKey, key.pk), {"post": "yes"}).status_code == 403
    path = reverse("admin:access_apikey_revoke_one", args=[key.pk])
    assert desk.get(path).status_code == 200 and keys.recognise(secret) is not None
    assert desk.post(path, {"_form_submitted": "on"}).status_code == 200
    assert keys.recognise(secret) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes"),
        ({"name": "  "}, "name"),
        ({"requests_per_minute": "0"}, "requests_per_minute"),
        ({"tokens_per_minute": "0"}, "tokens_per_minute"),
        ({"expires_at_0": "2001-01-01", "expires_at_1": "00:00:00"}, "expires_at"),
    ],
)
def test_a_bad_key_is_not_made(desk: Client, tenant: Tenant, changes: dict[str, Any], field: str) -> None:
    response = desk.post(url("add", ApiKey), {"name": "bot", "scopes": ["read"]} | changes)
    assert response.status_code == 200 and field in response.context_data["adminform"].form.errors
    assert in_tenant(tenant, ApiKey.objects.count) == 0


def test_a_superuser_adds_curators_to_the_own_tenant(desk: Client, tenant: Tenant, other_tenant: Tenant) -> None:
    name = f"new-{uuid4().hex[:8]}"
    form = {"username": name, "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD, "is_staff": "on"}
    assert desk.post(url("add", User), form).status_code == 302
    added = in_tenant(tenant, lambda: User.objects.get(username=name))
    assert added.tenant_id == tenant.id and added.is_staff and not added.is_superuser
    assert sign_in(added).get("/admin/").status_code == 200
    path = reverse("admin:auth_user_password_change", args=[added.pk])
    changed = {"usable_password": "true", "password1": PASSWORD + "2", "password2": PASSWORD + "2"}
    assert desk.post(path, changed).status_code == 302
    assert in_tenant(tenant, lambda: User.objects.get(pk=added.pk)).check_password(PASSWORD + "2")
    taken = make_curator(other_tenant).username
    response = desk.post(url("add", User), form | {"username": taken})
    assert response.status_code == 200 and "username" in response.context_data["adminform"].form.errors


def test_a_curator_changes_the_own_password(desk: Client, curator: User, tenant: Tenant) -> None:
    form = {"old_password": PASSWORD, "new_password1": PASSWORD + "3", "new_password2": PASSWORD + "3"}
    assert desk.post(reverse("admin:password_change"), form).status_code == 302
    assert desk.get("/admin/").status_code == 200  # still signed in
    assert in_tenant(tenant, lambda: User.objects.get(pk=curator.pk)).check_password(PASSWORD + "3")


@pytest.fixture
def clerk(tenant: Tenant) -> Client:
    return sign_in(make_curator(tenant, superuser=False, permissions=("view_document", "change_user", "add_apikey")))


def test_a_clerk_may_do_what_the_permissions_say(clerk: Client, owned: dict[type, Any], tenant: Tenant) -> None:
    assert clerk.get(url("change", Document, owned[Document])).status_code == 200
    assert clerk.post(url("change", Document, owned[Document]), {"title": "x", "metadata": "{}"}).status_code == 403
    assert clerk.get(reverse("admin:documents_document_version", args=[owned[Document], 1])).status_code == 200
    assert clerk.get(url("changelist", IngestionJob)).status_code == 403
    retry = reverse("admin:documents_ingestionjob_retry_one", args=[owned[IngestionJob]])
    assert clerk.post(retry, {"_form_submitted": "on"}).status_code == 403
    revoke = reverse("admin:access_apikey_revoke_one", args=[owned[ApiKey]])
    assert clerk.post(revoke, {"_form_submitted": "on"}).status_code == 403


def test_nobody_raises_themselves(clerk: Client, owned: dict[type, Any], tenant: Tenant) -> None:
    me = in_tenant(tenant, lambda: User.objects.get(is_superuser=False))
    form = {"username": me.username, "is_active": "on", "is_staff": "on", "is_superuser": "on", "user_permissions": "1"}
    joined = {"date_joined_0": "2024-01-01", "date_joined_1": "00:00:00"}
    assert clerk.post(url("change", User, me.pk), form | joined).status_code == 302
    after = in_tenant(tenant, lambda: User.objects.get(pk=me.pk))
    assert not after.is_superuser and in_tenant(tenant, after.user_permissions.count) == 3
    assert clerk.post(url("change", User, owned[User]), form).status_code == 403
    assert clerk.post(reverse("admin:auth_user_password_change", args=[owned[User]]), {}).status_code == 403


def test_only_the_operators_change_groups(desk: Client, database: None) -> None:
    operator = sign_in(make_curator(keys.ensure_tenant(slug=tenancy.DEFAULT_TENANT)))
    name = f"readers-{uuid4().hex[:6]}"
    assert desk.post(reverse("admin:auth_group_add"), {"name": name}).status_code == 403
    assert operator.post(reverse("admin:auth_group_add"), {"name": name}).status_code == 302
    listed = text_of(desk.get(reverse("admin:auth_group_changelist")))
    [pk] = re.findall(rf"/group/(\d+)/change/[^>]*>{name}<", listed)
    assert desk.post(reverse("admin:auth_group_change", args=[pk]), {"name": "x"}).status_code == 403
    assert operator.post(reverse("admin:auth_group_delete", args=[pk]), {"post": "yes"}).status_code == 302
