"""The curators' desk: every page answers, actions do what they say, and a tenant is a wall."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth import authenticate
from django.contrib.auth.models import Permission
from django.db import transaction
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.urls import reverse

from apps.access import keys, tenancy
from apps.access.models import ApiKey, Tenant, User
from apps.documents import collections
from apps.documents.accept import Accepted
from apps.documents.admin.dashboard import dashboard
from apps.documents.models import Chunk, Collection, Document, EmbeddingSpace, IngestionJob

PASSWORD = "correct horse battery"
MODELS = (Collection, Document, IngestionJob, EmbeddingSpace, ApiKey, User)
Ingest = Callable[..., Accepted]


def make_curator(tenant: Tenant, *, superuser: bool = True, permissions: tuple[str, ...] = ()) -> User:
    make = User.objects.create_superuser if superuser else User.objects.create_user
    user = make(f"u-{uuid4().hex[:10]}", password=PASSWORD, tenant_id=tenant.id, is_staff=True)
    with tenancy.scope(tenant.id):
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def sign_in(user: User) -> Client:
    desk = Client()
    response = desk.post(reverse("admin:login"), {"username": user.username, "password": PASSWORD, "next": "/admin/"})
    assert response.status_code == 302 and response.url == "/admin/"
    return desk


def url(page: str, model: type, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def text_of(response: Any) -> str:
    return response.content.decode()


def collection_form(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Notes",
        "slug": "notes",
        "description": "",
        "language": "english",
        "chunking_strategy": "recursive",
        "chunking_max_tokens": 200,
        "chunking_overlap_tokens": 0,
        "consistency_mode": "write_back",
        "consistency_window_seconds": 30,
        "space": EmbeddingSpace.objects.order_by("created_at")[0].pk,
    } | changes


@pytest.fixture
def curator(tenant: Tenant) -> User:
    return make_curator(tenant)


@pytest.fixture
def desk(curator: User) -> Client:
    return sign_in(curator)


@pytest.fixture
def document(collection: Collection, ingest: Ingest) -> Document:
    text = "# Harbour\n\nThe lighthouse keeper counts ships.\n\n# Hills\n\nSheep graze above the town."
    return ingest(collection, text, media_type="text/markdown", source_uri="harbour", title="Harbour notes").document


@pytest.fixture
def dead_job(collection: Collection, ingest: Ingest) -> IngestionJob:
    job = ingest(collection, b"%PDF-1.4 broken", media_type="application/pdf", source_uri="broken.pdf").job
    assert job is not None
    return job


@pytest.fixture
def owned(tenant: Tenant, curator: User, document: Document, dead_job: IngestionJob) -> dict[type, Any]:
    """One object of each registered model, of the tenant's own."""
    key, _ = keys.create_key(tenant_id=tenant.id, name="switchboard", scopes=["read"])
    space = EmbeddingSpace.objects.order_by("created_at")[0]
    return {
        Collection: document.collection_id,
        Document: document.pk,
        IngestionJob: dead_job.pk,
        EmbeddingSpace: space.pk,
        ApiKey: key.pk,
        User: curator.pk,
    }


def in_tenant(tenant: Tenant, query: Callable[[], Any]) -> Any:
    with tenancy.scope(tenant.id):
        return query()


def test_a_curator_signs_in_through_the_real_server_and_out(server: str, curator: User, document: Document) -> None:
    with httpx.Client(base_url=server, follow_redirects=True) as browser:
        page = browser.get("/admin/")
        assert page.url.path == "/admin/login/"
        form = {"username": curator.username, "next": "/admin/", "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        wrong = browser.post("/admin/login/", data=form | {"password": "wrong"})
        assert wrong.status_code == 200 and "Please enter the correct username" in wrong.text
        form["csrfmiddlewaretoken"] = browser.cookies["csrftoken"]
        assert browser.post("/admin/login/", data=form | {"password": PASSWORD}).url.path == "/admin/"
        page = browser.get(url("change", Document, document.pk))
        assert page.status_code == 200 and "The lighthouse keeper counts ships." in page.text
        assert browser.get("/static/unfold/css/styles.css").status_code == 200
        out = browser.post("/admin/logout/", data={"csrfmiddlewaretoken": browser.cookies["csrftoken"]})
        assert out.status_code == 200
        assert browser.get("/admin/").url.path == "/admin/login/"


def test_every_page_answers(desk: Client, owned: dict[type, Any]) -> None:
    assert desk.get("/admin/").status_code == 200
    assert set(owned) <= set(admin.site._registry)
    for model, pk in owned.items():
        assert desk.get(url("changelist", model)).status_code == 200, model
        assert desk.get(url("change", model, pk)).status_code == 200, model
        assert desk.get(url("history", model, pk)).status_code == 200, model
        assert desk.get(url("changelist", model), {"q": "a"}).status_code == 200, model
    for model in (Collection, ApiKey, User):
        assert desk.get(url("add", model)).status_code == 200
    for model in (Document, IngestionJob, EmbeddingSpace):
        assert desk.get(url("add", model)).status_code == 403
    for page in ("changelist", "add"):
        assert desk.get(reverse(f"admin:auth_group_{page}")).status_code == (200 if page == "changelist" else 403)
    assert desk.get(reverse("admin:auth_user_password_change", args=[owned[User]])).status_code == 200


@pytest.mark.parametrize("query", ["q=%00", "collection__id__exact=%00", "state=%00", "nonsense=1", "p=x", "o=99"])
def test_a_bad_query_string_is_no_error_page(desk: Client, document: Document, query: str) -> None:
    response = desk.get(url("changelist", Document) + "?" + query, follow=True)
    assert response.status_code == 200


def test_the_dashboard_counts_the_own_tenant(curator: User, tenant: Tenant, owned: dict[type, Any]) -> None:
    request: HttpRequest = RequestFactory().get("/admin/")
    request.user = curator
    shown = in_tenant(tenant, lambda: dashboard(request, {}))
    cards = {card["title"]: card["value"] for card in shown["cards"]}
    assert cards["Live documents"] == 1 and cards["Dead letters"] == 1 and cards["Jobs waiting"] == 0
    assert any("broken.pdf" in str(row[0]) for table in shown["tables"] for row in table["rows"])
    request.user = make_curator(tenant, superuser=False)
    shown = in_tenant(tenant, lambda: dashboard(request, {}))
    assert shown["cards"] == [] and shown["tables"] == []


def test_nothing_of_another_tenant_shows(other_tenant: Tenant, owned: dict[type, Any], desk: Client) -> None:
    stranger = make_curator(other_tenant)
    assert (
        desk.post(url("change", Document, owned[Document]), {"title": "Harbour secrets", "metadata": "{}"}).status_code
        == 302
    )
    theirs = sign_in(stranger)
    secrets = ("Harbour", "broken.pdf", "switchboard", str(owned[Document]), str(owned[Collection]), str(owned[ApiKey]))
    for model in MODELS:
        listed = text_of(theirs.get(url("changelist", model)))
        assert not [secret for secret in secrets if secret in listed], model
    for model in set(MODELS) - {EmbeddingSpace}:  # that one belongs to nobody
        for page in ("change", "history", "delete"):
            response = theirs.get(url(page, model, owned[model]))
            assert response.status_code in (302, 403), (model, page)  # "doesn't exist", on the index
            assert response.status_code == 403 or response.url == "/admin/"
    assert "Harbour" not in text_of(theirs.get("/admin/"))
    assert theirs.get(reverse("admin:documents_document_version", args=[owned[Document], 1])).status_code == 302
    assert theirs.get(reverse("admin:auth_user_password_change", args=[owned[User]])).status_code in (403, 404)
    completed = {"app_label": "documents", "model_name": "document", "field_name": "collection"}
    assert theirs.get(reverse("admin:autocomplete"), completed).json()["results"] == []
    assert len(desk.get(reverse("admin:autocomplete"), completed).json()["results"]) == 1
    filtered = theirs.get(url("changelist", Document), {"collection__id__exact": str(owned[Collection])})
    assert "Harbour" not in text_of(filtered)
    assert in_tenant(other_tenant, LogEntry.objects.count) == 0
    found = theirs.get(reverse("admin:search"), {"s": "harbour", "extended": "1"})
    assert "Harbour" not in text_of(found)


def test_another_tenants_objects_cannot_be_acted_on(
    tenant: Tenant, other_tenant: Tenant, owned: dict[type, Any], desk: Client
) -> None:
    theirs = sign_in(make_curator(other_tenant))
    for model, action in ((Document, "delete_selected"), (IngestionJob, "retry"), (ApiKey, "revoke")):
        form = {"action": action, "_selected_action": str(owned[model]), "post": "yes"}
        assert theirs.post(url("changelist", model), form).status_code in (200, 302)
    for model, action in ((IngestionJob, "retry_one"), (ApiKey, "revoke_one")):
        path = reverse(f"admin:{model._meta.label_lower.replace('.', '_')}_{action}", args=[owned[model]])
        assert theirs.post(path, {"_form_submitted": "on"}).status_code == 302
    assert theirs.post(url("delete", Collection, owned[Collection]), {"post": "yes"}).status_code == 302
    assert in_tenant(tenant, lambda: Document.objects.get(pk=owned[Document]).deleted_at) is None
    assert in_tenant(tenant, lambda: IngestionJob.objects.get(pk=owned[IngestionJob]).state) == "dead"
    assert in_tenant(tenant, lambda: ApiKey.objects.get(pk=owned[ApiKey]).revoked_at) is None


def test_a_wrong_password_opens_no_tenant(curator: User, tenant: Tenant, other_tenant: Tenant) -> None:
    """Whoever is signed in and fails to sign in as another must not see that other's tenant in the same request."""
    stranger = make_curator(other_tenant)
    with tenancy.scope(tenant.id):
        assert User.objects.count() == 1
        assert authenticate(username=stranger.username, password="wrong") is None
        assert User.objects.count() == 0
    with transaction.atomic():
        assert authenticate(username=stranger.username, password=PASSWORD) == stranger
        assert list(User.objects.all()) == [stranger]


def test_a_collection_is_made_in_the_curators_tenant(desk: Client, tenant: Tenant) -> None:
    response = desk.post(url("add", Collection), collection_form(chunking_max_tokens=64, chunking_overlap_tokens=8))
    assert response.status_code == 302
    made = in_tenant(tenant, lambda: Collection.objects.get(slug="notes"))
    assert (made.tenant_id, made.chunking_max_tokens, made.chunking_overlap_tokens) == (tenant.id, 64, 8)
    assert in_tenant(tenant, lambda: LogEntry.objects.get().object_id) == str(made.pk)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"chunking_overlap_tokens": 100}, "chunking_overlap_tokens"),
        ({"chunking_max_tokens": 5}, "chunking_max_tokens"),
        ({"chunking_max_tokens": 10**12}, "chunking_max_tokens"),
        ({"chunking_strategy": "magic"}, "chunking_strategy"),
        ({"language": "klingon"}, "language"),
        ({"consistency_window_seconds": 10**6}, "consistency_window_seconds"),
        ({"slug": "No Slug"}, "slug"),
        ({"slug": "docs"}, "slug"),
        ({"name": "a\x00b"}, "name"),
        ({"space": str(uuid4())}, "space"),
    ],
)
def test_a_bad_setting_shows_at_its_field(
    desk: Client, tenant: Tenant, collection: Collection, changes: dict[str, Any], field: str
) -> None:
    response = desk.post(url("add", Collection), collection_form(**changes))
    assert response.status_code == 200
    assert field in response.context_data["adminform"].form.errors
    assert in_tenant(tenant, Collection.objects.count) == 1


def test_saving_a_collection_leaves_its_counters_alone(
    desk: Client, tenant: Tenant, document: Document, ingest: Ingest
) -> None:
    before = in_tenant(tenant, lambda: Collection.objects.get(pk=document.collection_id))
    form = collection_form(name="Renamed", chunking_max_tokens=64, space=str(uuid4()), slug="other")
    assert desk.post(url("change", Collection, before.pk), form).status_code == 302
    after = in_tenant(tenant, lambda: Collection.objects.get(pk=before.pk))
    assert (after.name, after.chunking_max_tokens) == ("Renamed", 64)
    assert (after.slug, after.space_id, after.epoch, after.chunks, after.documents) == (
        before.slug,
        before.space_id,
        before.epoch,
        before.chunks,
        before.documents,
    )


def test_deleting_a_collection_removes_all_that_it_holds(desk: Client, tenant: Tenant, document: Document) -> None:
    path = url("delete", Collection, document.collection_id)
    assert "1 live documents" in text_of(desk.get(path))
    assert desk.post(path, {"post": "yes"}).status_code == 302
    for model in (Collection, Document, Chunk, IngestionJob):
        assert in_tenant(tenant, model.objects.count) == 0  # type: ignore[attr-defined]


def test_a_document_page_shows_versions_and_live_chunks(
    desk: Client, collection: Collection, document: Document, ingest: Ingest
) -> None:
    ingest(collection, "# Harbour\n\nNobody counts ships.", media_type="text/markdown", source_uri="harbour")
    page = text_of(desk.get(url("change", Document, document.pk)))
    assert "Nobody counts ships." in page and "Chunks of the live version, 2" in page
    assert "lighthouse" not in page.replace("Harbour notes", "")  # the old version's chunks are not the live ones
    [old] = re.findall(r'href="([^"]*/versions/1/)"', page)
    assert "The lighthouse keeper counts ships." in text_of(desk.get(old))
    marked = text_of(desk.get(old, {"start": 2, "end": 9}))
    assert re.search(r"<mark[^>]*>Harbour</mark>", marked)
    for query in ("start=x&end=-1", "start=99999999999999999999", "start=9&end=2"):
        assert desk.get(f"{old}?{query}").status_code == 200
    assert desk.get(old.replace("/1/", "/99/")).status_code == 302
    assert desk.get(old.replace("/1/", f"/{10**30}/")).status_code == 302


def test_a_large_document_is_shown_in_pages(desk: Client, collection: Collection, ingest: Ingest) -> None:
    text = "\n\n".join(f"# Part {n}\n\nParagraph number {n}." for n in range(60))
    document = ingest(collection, text, media_type="text/markdown", source_uri="large").document
    path = url("change", Document, document.pk)
    assert text_of(desk.get(path)).count("Paragraph number") == 25
    last = text_of(desk.get(path, {"after": 50}))
    assert last.count("Paragraph number") == 10 and "Next chunks" not in last


def test_title_and_metadata_are_changed_as_the_api_does(desk: Client, tenant: Tenant, document: Document) -> None:
    epoch = in_tenant(tenant, lambda: Collection.objects.get(pk=document.collection_id).epoch)
    path = url("change", Document, document.pk)
    form = {
        "title": "New",
        "metadata": json.dumps({"tag": ["a"]}),
        "source_uri": "hacked",
        "version": "9",
        "state": "x",
    }
    assert desk.post(path, form).status_code == 302
    after = in_tenant(tenant, lambda: Document.objects.select_related("collection").get(pk=document.pk))
    assert (after.title, after.metadata, after.source_uri, after.version) == ("New", {"tag": ["a"]}, "harbour", 1)
    assert after.collection.epoch == epoch + 1
    assert desk.post(path, form).status_code == 302  # nothing changed: nothing is invalidated
    assert in_tenant(tenant, lambda: Collection.objects.get(pk=document.collection_id).epoch) == epoch + 1


@pytest.mark.parametrize(
    "metadata",
    ["[1]", "{", '{"a": "\\u0000"}', '{"a": "\\ud800"}', '{"a": NaN}', "[" * 5000, '{"a": ' + "1" * 5000 + "}"],
)
def test_bad_metadata_shows_at_its_field(desk: Client, document: Document, metadata: str) -> None:
    response = desk.post(url("change", Document, document.pk), {"title": "T", "metadata": metadata})
    assert response.status_code == 200
    assert "metadata" in response.context_data["adminform"].form.errors


def test_deleting_a_document_is_a_delete_in_the_products_sense(
    desk: Client, tenant: Tenant, collection: Collection, document: Document, ingest: Ingest
) -> None:
    second = ingest(collection, "Another text.", source_uri="second").document
    assert desk.post(url("delete", Document, document.pk), {"post": "yes"}).status_code == 302
    action = {"action": "delete_selected", "_selected_action": str(second.pk)}
    assert "Are you sure" in text_of(desk.post(url("changelist", Document), action))
    assert desk.post(url("changelist", Document), action | {"post": "yes"}).status_code == 302
    states = in_tenant(tenant, lambda: list(Document.objects.values_list("state", "live_version")))
    assert states == [("deleted", None)] * 2
    assert in_tenant(tenant, lambda: Chunk.objects.filter(retired_in_version=None).count()) == 0
    assert in_tenant(tenant, lambda: Collection.objects.get(pk=collection.pk).documents) == 0
    listed = text_of(desk.get(url("changelist", Document)))
    assert "All but deleted" in listed and "Harbour notes" not in listed
    assert "Harbour notes" in text_of(desk.get(url("changelist", Document), {"state": "deleted"}))
    page = desk.get(url("change", Document, document.pk))
    assert page.status_code == 200 and not page.context_data["has_change_permission"]
    assert desk.post(url("delete", Document, document.pk), {"post": "yes"}).status_code == 403


def test_jobs_are_retried_and_cancelled(desk: Client, tenant: Tenant, dead_job: IngestionJob) -> None:
    def state() -> str:
        return in_tenant(tenant, lambda: IngestionJob.objects.get(pk=dead_job.pk).state)

    def act(action: str) -> str:
        form = {"action": action, "_selected_action": str(dead_job.pk)}
        return text_of(desk.post(url("changelist", IngestionJob), form, follow=True))

    assert "corrupt" in text_of(desk.get(url("changelist", IngestionJob), {"state__exact": "dead"}))
    assert "0 of 1 cancelled" in act("cancel")
    assert "Queued again." in act("retry") and state() == "queued"
    assert "Cancelled." in act("cancel") and state() == "cancelled"
    path = reverse("admin:documents_ingestionjob_retry_one", args=[dead_job.pk])
    assert desk.get(path).status_code == 200 and state() == "cancelled"  # a link alone does nothing
    done = desk.post(path, {"_form_submitted": "on"})
    assert done["HX-Redirect"] == url("change", IngestionJob, dead_job.pk) and state() == "queued"


def test_a_key_is_shown_once_and_works_until_it_is_revoked(desk: Client, tenant: Tenant) -> None:
    form = {"name": "bot", "scopes": ["read", "write"], "requests_per_minute": "60"}
    made = desk.post(url("add", ApiKey), form, follow=True)
    [secret] = re.findall(r"rs_[\w-]{43}", text_of(made))
    caller = keys.recognise(secret)
    assert caller is not None and caller.tenant_id == tenant.id
    assert (caller.scopes, caller.requests_per_minute) == ({"read", "write"}, 60)
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


def test_a_name_taken_meanwhile_is_a_message(
    desk: Client, tenant: Tenant, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apps.documents.admin.collections import CollectionForm

    monkeypatch.setattr(CollectionForm, "clean_slug", lambda form: form.cleaned_data["slug"])
    response = desk.post(url("add", Collection), collection_form(slug="docs"), follow=True)
    assert response.status_code == 200 and "There is a collection" in text_of(response)
    assert in_tenant(tenant, lambda: collections.find("docs").name) == "Docs"
