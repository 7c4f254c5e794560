"""Sources are made, changed, synced and deleted at the desk; what is secret stays there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import NoReverseMatch, reverse
from django_celery_beat.models import PeriodicTask

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import embed, prepare
from apps.documents.admin.source_form import OF_KIND, ROWS, SETTINGS, SourceForm
from apps.documents.models import Collection, Document, IngestionJob, Source, SourceItem, SyncRun
from apps.documents.sources import kinds, runs, sync, verbs
from tests.support.desk import in_tenant, make_curator, sign_in, text_of, url

SECRET = "not-for-any-page"
GOOD: dict[str, dict[str, Any]] = {
    "folder": {"path": "/tmp", "include": "*.md\r\n\r\n reports/** ", "exclude": "drafts/", "max_bytes": "5000"},
    "s3": {
        "bucket": "library",
        "prefix": "2026/",
        "endpoint": "https://s3.example.org",
        "region": "eu-central-1",
        "path_style": "False",
        "access_key": "AKIA",
        "secret_key": SECRET,
        "include": "*.md",
        "exclude": "",
        "max_bytes": "",
    },
    "web": {
        "url": "https://example.org/",
        "depth": "2",
        "max_pages": "20",
        "delay_seconds": "0.25",
        "include": "/docs/",
        "exclude": "/docs/old/\n/docs/new/",
        "user_agent": "library",
    },
    "feed": {},
}
STORED: dict[str, dict[str, Any]] = {
    "folder": {
        "path": "/tmp",
        "include": ["*.md", "reports/**"],
        "exclude": ["drafts/"],
        "watch": False,
        "max_bytes": 5000,
    },
    "s3": {
        "bucket": "library",
        "prefix": "2026/",
        "endpoint": "https://s3.example.org",
        "region": "eu-central-1",
        "path_style": False,
        "access_key": "AKIA",
        "include": ["*.md"],
        "exclude": [],
        "max_bytes": 100 * 2**20,
    },
    "web": {
        "url": "https://example.org/",
        "depth": 2,
        "max_pages": 20,
        "delay_seconds": 0.25,
        "include": ["/docs/"],
        "exclude": ["/docs/old/", "/docs/new/"],
        "user_agent": "library",
    },
    "feed": {},
}

#: Each is refused, at this very field.
BAD: dict[str, list[dict[str, str]]] = {
    "folder": [
        {"name": ""},
        {"name": "a\x00b"},
        {"name": "x" * 201},
        {"name": "Harbour files"},
        {"kind": "ftp"},
        {"collection": "7f3b0d0e-0000-4000-8000-000000000000"},
        {"collection": ""},
        {"schedule": "every day"},
        {"schedule": "0 3 * * 9"},
        {"schedule": "0 3 31 2 *"},
        {"schedule": "0 " * 99},
        {"path": ""},
        {"path": "relative"},
        {"path": "/there/is/no/such/folder"},
        {"path": "/tmp/../etc"},
        {"path": "/tm\x00p"},
        {"include": "good\n/bad"},
        {"exclude": "../up"},
        {"exclude": "a\x00b"},
        {"max_bytes": "0"},
        {"max_bytes": "many"},
    ],
    "s3": [
        {"bucket": ""},
        {"bucket": "a b"},
        {"prefix": "x" * 1025},
        {"endpoint": "ftp://example.org"},
        {"region": "Middle Earth"},
        {"path_style": "maybe"},
        {"access_key": ""},
        {"secret_key": ""},
        {"include": "x\n" * 101},
        {"max_bytes": "-1"},
    ],
    "web": [
        {"url": ""},
        {"url": "file:///etc/passwd"},
        {"url": "http://0x7f.1/"},
        {"depth": "11"},
        {"depth": "9" * 5000},
        {"max_pages": "0"},
        {"delay_seconds": "nan"},
        {"delay_seconds": "61"},
        {"include": "docs"},
        {"exclude": "/a\n/b?c"},
        {"user_agent": "gr\u00fcn"},
    ],
}


def form(collection: Collection, kind: str = "folder", /, **changes: Any) -> dict[str, Any]:
    top = {"name": f"A {kind}", "kind": kind, "collection": str(collection.pk), "enabled": "on", "schedule": ""}
    return top | GOOD[kind] | changes


def add(desk: Client, collection: Collection, kind: str, /, **changes: Any) -> Source:
    response = desk.post(url("add", Source), form(collection, kind, **changes))
    assert response.status_code == 302, response.context_data["adminform"].form.errors
    with tenancy.scope(collection.tenant_id):
        made = Source.objects.get(name=changes.get("name", f"A {kind}"))
    assert response.url == url("change", Source, made.pk)
    return made


def again(source: Source) -> Source:
    with tenancy.scope(source.tenant_id):
        return verbs.find(source.pk)


def newest(source: Source) -> SyncRun:
    with tenancy.scope(source.tenant_id):
        return SyncRun.objects.filter(source=source).order_by("-created_at")[0]


def work_on(source: Source) -> SyncRun:
    """Do the run that waits, in this process."""
    held = runs.claim(newest(source).pk)
    assert held is not None
    sync.work(held)
    return newest(source)


def do(desk: Client, action: str, source: Source, **values: str) -> Any:
    path = reverse(f"admin:documents_source_{action}", args=[source.pk])
    return desk.post(path, {"_form_submitted": "on", **values})


def offered(desk: Client, source: Source) -> set[str]:
    page = text_of(desk.get(url("change", Source, source.pk)))
    return set(re.findall(rf'{source.pk}/(sync_now|sync_empty|cancel|remove)/"', page))


def test_every_setting_of_every_kind_has_a_field_and_a_place_in_the_form() -> None:
    assert set(OF_KIND) == set(Source.Kind)
    assert SourceForm.declared_fields.keys() == SETTINGS == {name for row in ROWS for name in row}
    for kind, stored in STORED.items():
        assert OF_KIND[Source.Kind(kind)] == stored.keys() | ({"secret_key"} if kind == "s3" else set())


@pytest.mark.parametrize("kind", Source.Kind.values)
def test_a_source_is_made_and_its_page_shows_what_is_stored(
    desk: Client, tenant: Tenant, collection: Collection, kind: str
) -> None:
    made = add(desk, collection, kind, schedule=" 0  3 * * * ")
    assert (made.kind, made.collection_id, made.settings, made.enabled) == (kind, collection.pk, STORED[kind], True)
    assert made.schedule == ("" if kind == "feed" else "0 3 * * *")
    assert (made.secret is not None) == (kind == "s3")
    assert in_tenant(tenant, PeriodicTask.objects.filter(name=f"source {made.pk}").count) == (kind != "feed")
    assert in_tenant(tenant, lambda: LogEntry.objects.get().object_id) == str(made.pk)
    page = desk.get(url("change", Source, made.pk))
    shown = page.context_data["adminform"].form
    assert {name: shown[name].initial for name in STORED[kind]} == STORED[kind]
    assert ("At 03:00 AM UTC" in text_of(page)) == (kind != "feed")
    assert (f"http://testserver/api/v1/sources/{made.pk}/events" in text_of(page)) == (kind == "feed")
    rows = text_of(desk.get(url("changelist", Source)))
    assert f"A {kind}" in rows and made.get_kind_display() in rows and "Docs" in rows


@pytest.mark.parametrize("kind", Source.Kind.values)
def test_a_page_that_is_saved_as_it_stands_changes_nothing(desk: Client, collection: Collection, kind: str) -> None:
    made = add(desk, collection, kind, schedule="*/5 * * * *")
    shown = desk.get(url("change", Source, made.pk)).context_data["adminform"].form
    values = {name: shown[name].value() for name in shown.fields if shown[name].value() is not None}
    unchecked = {"watch"} if kind == "folder" else set()
    posted = {name: value for name, value in values.items() if name not in unchecked}
    assert desk.post(url("change", Source, made.pk), posted).status_code == 302
    after = again(made)
    assert (after.settings, after.secret, after.schedule, after.slot, after.enabled) == (
        made.settings,
        made.secret,
        made.schedule,
        made.slot,
        True,
    )


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_value_shows_at_its_field(desk: Client, tenant: Tenant, source: Source, kind: str) -> None:
    for changes in BAD[kind]:
        response = desk.post(url("add", Source), form(source.collection, kind, **changes))
        assert response.status_code == 200, changes
        assert response.context_data["adminform"].form.errors.keys() == changes.keys()
        assert SECRET not in text_of(response)
    assert in_tenant(tenant, Source.objects.count) == 1


def test_the_form_says_what_each_kind_needs_and_takes(desk: Client, collection: Collection) -> None:
    def helps(kind: str | None) -> tuple[set[str], dict[str, str]]:
        page = url("add", Source) if kind is None else url("change", Source, add(desk, collection, kind).pk)
        fields = desk.get(page).context_data["adminform"].form.fields
        return {name for name in SETTINGS if fields[name].required}, {n: str(f.help_text) for n, f in fields.items()}

    required, told = helps(None)
    assert required == {"path", "bucket", "url"} and "stored one" not in told["secret_key"]
    assert "x-show=\"kind === 'web'\"" in told["include"] and "x-show=\"kind === 'folder'\"" in told["schedule"]
    for kind in ("folder", "s3", "web"):
        told = helps(kind)[1]
        assert ("beginning of a path" in told["include"]) == (kind == "web") and "x-show" not in told["include"]
        assert ("Watch" in told["schedule"]) == (kind == "folder")
        assert ("stored one" in told["secret_key"]) == (kind == "s3")


def test_the_bad_one_of_several_patterns_is_named(desk: Client, collection: Collection) -> None:
    response = desk.post(url("add", Source), form(collection, include="good\n\n/bad"))
    [told] = response.context_data["adminform"].form.errors["include"]
    assert told.startswith('"/bad": A pattern is relative')


def test_what_was_typed_for_another_kind_does_not_count(desk: Client, collection: Collection) -> None:
    made = add(desk, collection, "folder", depth="deep", bucket="?", secret_key=SECRET, region="x" * 2000)
    assert (made.settings, made.secret) == (STORED["folder"], None)
    made = add(desk, collection, "feed", path="relative", schedule="never", include="/x")
    assert (made.settings, made.schedule) == ({}, "")


def test_settings_are_changed_but_neither_kind_nor_collection(
    desk: Client, tenant: Tenant, collection: Collection, source: Source, tmp_path: Path
) -> None:
    values = {"name": "Files", "path": str(tmp_path), "watch": "on", "include": "*.md", "schedule": "*/15 * * * *"}
    posted = values | {"kind": "web", "collection": "", "url": "https://example.org/", "settings": "{}", "secret": "x"}
    assert desk.post(url("change", Source, source.pk), posted).status_code == 302
    after = again(source)
    assert (after.kind, after.collection_id, after.name, after.enabled) == ("folder", collection.pk, "Files", False)
    assert (after.settings["include"], after.settings["exclude"], after.settings["watch"]) == (["*.md"], [], True)
    assert after.schedule == "*/15 * * * *" and after.slot is not None
    assert in_tenant(tenant, lambda: PeriodicTask.objects.get(name=f"source {source.pk}").enabled) is False


def test_a_bad_change_shows_at_its_field(desk: Client, collection: Collection, source: Source) -> None:
    add(desk, collection, "feed")
    fixed = ({"kind": "ftp"}, {"name": source.name})
    for changes in (
        {"name": "A feed"},
        *(bad for bad in BAD["folder"] if bad not in fixed and "collection" not in bad),
    ):
        values = {"name": "Files", "enabled": "on", **source.settings, "exclude": "drafts/", "include": ""} | changes
        response = desk.post(url("change", Source, source.pk), values)
        assert response.status_code == 200, changes
        assert response.context_data["adminform"].form.errors.keys() == changes.keys()
    assert again(source).name == "Harbour files"


def test_a_source_whose_folder_is_away_can_be_switched_off(desk: Client, source: Source, tmp_path: Path) -> None:
    away = tmp_path.rename(tmp_path.with_name("away"))
    values = {**source.settings, "name": source.name, "exclude": "drafts/", "include": ""}
    del values["watch"]
    assert desk.post(url("change", Source, source.pk), values).status_code == 302
    assert again(source).enabled is False and again(source).settings == source.settings
    away.rename(tmp_path)


def test_a_secret_is_kept_when_left_empty_replaced_when_given_and_never_shown(
    desk: Client, tenant: Tenant, collection: Collection
) -> None:
    made = add(desk, collection, "s3")
    secret = lambda: in_tenant(tenant, lambda: kinds._opened(again(made)))  # noqa: E731
    values = form(collection, "s3", prefix="2027/", secret_key="")
    assert desk.post(url("change", Source, made.pk), values).status_code == 302
    assert again(made).settings["prefix"] == "2027/" and secret() == {"secret_key": SECRET}
    values = form(collection, "s3", access_key="OTHER", secret_key="")
    assert "go together" in text_of(desk.post(url("change", Source, made.pk), values))
    assert desk.post(url("change", Source, made.pk), values | {"secret_key": f"new {SECRET}"}).status_code == 302
    assert secret() == {"secret_key": f"new {SECRET}"}
    viewer = sign_in(make_curator(tenant, superuser=False, permissions=("view_source",)))
    for curator in (desk, viewer):
        for page in ("change", "history"):
            text = text_of(curator.get(url(page, Source, made.pk)))
            assert SECRET not in text and bytes(again(made).secret or b"").decode() not in text
        assert SECRET not in text_of(curator.get(url("changelist", Source)))
    assert "library" in text_of(viewer.get(url("change", Source, made.pk)))
    values = form(collection, "s3", access_key="", secret_key="")
    assert desk.post(url("change", Source, made.pk), values).status_code == 302
    assert again(made).secret is None


def test_a_source_is_synced_and_its_page_tells_what_happened(
    desk: Client, tenant: Tenant, collection: Collection, source: Source, tmp_path: Path
) -> None:
    assert offered(desk, source) == {"sync_now", "remove"}
    path = reverse("admin:documents_source_sync_now", args=[source.pk])
    assert desk.get(path).status_code == 200 and in_tenant(tenant, SyncRun.objects.count) == 0  # a link does nothing
    assert do(desk, "sync_now", source)["HX-Redirect"] == url("change", Source, source.pk)
    assert newest(source).state == "queued" and offered(desk, source) == {"sync_now", "cancel", "remove"}
    assert "queued" in text_of(desk.get(url("changelist", Source)))
    assert work_on(source).state == "done"
    (tmp_path / "harbour.md").write_text("x" * 6000)
    desk.post(url("change", Source, source.pk), {"name": "Files", "enabled": "on", "path": tmp_path, "max_bytes": 5000})
    do(desk, "sync_now", source)
    work_on(source)
    page = desk.get(url("change", Source, source.pk))
    assert [row[5] for row in page.context_data["runs"]["rows"]] == ["1 failed", "+2"]
    [failing] = page.context_data["failures"]["rows"]
    held = in_tenant(tenant, lambda: SourceItem.objects.get(source=source, key="harbour.md"))
    assert failing[0] == "harbour.md" and "too_large" in failing[1] and str(held.document_id) in failing[2]
    assert "2 taken; 1 failed" in text_of(page)
    assert f"?collection__id__exact={collection.pk}" in text_of(page)
    [row] = re.findall(r"<tr.*?</tr>", text_of(desk.get(url("changelist", Source))).split("<tbody")[1], re.DOTALL)
    assert "1 failed" in row and "just now" in row
    notes = in_tenant(tenant, lambda: [entry.get_change_message() for entry in LogEntry.objects.all()])
    assert notes.count("Sync asked for.") == 2


def test_what_was_taken_and_could_not_be_parsed_is_among_what_failed(
    desk: Client, tenant: Tenant, source: Source, tmp_path: Path
) -> None:
    def sync_all() -> list[Any]:
        do(desk, "sync_now", source)
        work_on(source)
        with tenancy.scope(tenant.id):
            waiting = list(IngestionJob.objects.filter(state="queued").values_list("pk", flat=True))
        for job in waiting:
            prepare.drain(job_id=job)
            embed.drain(job_id=job)
        page = desk.get(url("change", Source, source.pk))
        assert f"{len(page.context_data['failures']['rows'])} failed" in text_of(page)
        return [(row[0], row[1].split(":")[0], row[2]) for row in page.context_data["failures"]["rows"]]

    assert sync_all() == []
    for name in ("harbour.md", "new.pdf"):
        (tmp_path / name).write_bytes(b"%PDF-1.4 broken")
    rows = sync_all()
    assert [row[:2] for row in rows] == [("harbour.md", "corrupt"), ("new.pdf", "corrupt")]
    assert ">version 1<" in rows[0][2] and ">no version<" in rows[1][2]
    assert sync_all() == rows  # a run that found them unchanged


def test_what_belongs_to_another_source_is_among_what_could_not_be_taken(
    desk: Client, collection: Collection, source: Source, tmp_path: Path
) -> None:
    second = add(desk, collection, "folder", path=str(tmp_path), include="", exclude="")
    for each in (source, second):
        do(desk, "sync_now", each)
        work_on(each)
    rows = desk.get(url("change", Source, second.pk)).context_data["failures"]["rows"]
    assert [(row[0], row[1].split(":")[0]) for row in rows] == [
        ("harbour.md", "source_uri_taken"),
        ("hills.md", "source_uri_taken"),
    ]


def test_failing_items_are_a_table_with_an_end(desk: Client, source: Source, tenant: Tenant) -> None:
    def fail() -> None:
        error = {"code": "too_large", "detail": "Too large."}
        ids = {"collection_id": source.collection_id, "tenant": tenant, "source": source}
        SourceItem.objects.bulk_create(SourceItem(key=f"{n:03}", error=error, **ids) for n in range(60))

    in_tenant(tenant, fail)
    failures = desk.get(url("change", Source, source.pk)).context_data["failures"]
    assert failures["title"].endswith("the first 50 of 60") and [row[0] for row in failures["rows"]][-1] == "049"


def test_a_source_found_empty_is_emptied_only_when_that_is_right(
    desk: Client, tenant: Tenant, source: Source, tmp_path: Path
) -> None:
    for number in range(20):
        (tmp_path / f"{number}.md").write_text(f"Page {number}.")
    do(desk, "sync_now", source)
    work_on(source)
    for page in tmp_path.iterdir():
        page.unlink()
    do(desk, "sync_now", source)
    assert work_on(source).state == "failed"
    assert offered(desk, source) == {"sync_now", "sync_empty", "remove"}
    assert "vanished" in text_of(desk.get(url("changelist", Source), {"last": "failed"}))
    overview = desk.get("/admin/").context_data
    [card] = [card for card in overview["cards"] if card["title"] == "Failing sources"]
    assert card["value"] == 1 and card["alarm"] and card["href"] == url("changelist", Source) + "?last=failed"
    do(desk, "sync_empty", source)
    assert newest(source).empty_it and work_on(source).counts["removed"] == 22
    assert offered(desk, source) == {"sync_now", "remove"}
    assert "Harbour files" not in text_of(desk.get(url("changelist", Source), {"last": "failed"})).split("<main")[-1]


def test_the_dashboard_shows_failing_sources_first(desk: Client, collection: Collection, source: Source) -> None:
    add(desk, collection, "folder")  # by name it would come first
    do(desk, "sync_now", source)
    held = runs.claim(newest(source).pk)
    assert held is not None
    runs.end(held, "failed", {"code": "unreachable", "detail": "The folder cannot be listed."})
    overview = desk.get("/admin/").context_data
    [table] = [table for table in overview["tables"] if table["title"] == "Sources"]
    assert ["Harbour files" in row[0] for row in table["rows"]] == [True, False]
    assert "failed" in table["rows"][0][2] and table["rows"][0][3:] == ["unreachable", "just now"]
    desk.post(url("change", Source, source.pk), {**source.settings, "name": source.name, "include": "", "exclude": ""})
    overview = desk.get("/admin/").context_data  # switched off, it needs nobody
    assert {card["title"]: card["value"] for card in overview["cards"]}["Failing sources"] == 0


def test_an_open_run_is_cancelled(desk: Client, source: Source) -> None:
    do(desk, "sync_now", source)
    do(desk, "cancel", source)
    assert newest(source).state == "cancelled" and offered(desk, source) == {"sync_now", "remove"}
    do(desk, "cancel", source)
    assert "No run is open." in text_of(desk.get("/admin/"))


def test_the_selected_are_synced_where_they_can_be(
    desk: Client, tenant: Tenant, collection: Collection, source: Source
) -> None:
    feed = add(desk, collection, "feed")
    action = {"action": "sync_selected", "_selected_action": [str(source.pk), str(feed.pk)]}
    page = text_of(desk.post(url("changelist", Source), action, follow=True))
    assert "1 of 2 will be synced" in page and newest(source).trigger == "manual"
    assert in_tenant(tenant, SyncRun.objects.count) == 1
    assert offered(desk, feed) == {"remove"}
    do(desk, "sync_now", feed)
    assert "A feed is not read" in text_of(desk.get("/admin/"))


@pytest.mark.parametrize("too", [False, True])
def test_deleting_a_source_keeps_its_documents_unless_they_are_to_go(
    desk: Client, tenant: Tenant, source: Source, too: bool
) -> None:
    do(desk, "sync_now", source)
    work_on(source)
    path = reverse("admin:documents_source_remove", args=[source.pk])
    dialog = text_of(desk.get(path))
    assert re.search(r'<input[^>]*name="documents"', dialog) and not re.search(
        r'name="documents"[^>]* checked[ >]', dialog
    )
    answer = do(desk, "remove", source, **({"documents": "on"} if too else {}))
    assert answer["HX-Redirect"] == url("changelist", Source)
    assert in_tenant(tenant, Source.objects.count) == 0 and in_tenant(tenant, SourceItem.objects.count) == 0
    states = in_tenant(tenant, lambda: set(Document.objects.values_list("state", flat=True)))
    assert states == {"deleted" if too else "pending"}
    assert do(desk, "remove", source).url == "/admin/"  # it is gone
    assert desk.post(path.replace(str(source.pk), "x"), {"_form_submitted": "on"}).url == "/admin/"


def test_whoever_may_look_may_not_act(tenant: Tenant, collection: Collection, source: Source) -> None:
    look = sign_in(make_curator(tenant, superuser=False, permissions=("view_source",)))
    page = look.get(url("change", Source, source.pk))
    assert page.status_code == 200 and source.settings["path"] in text_of(page) and offered(look, source) == set()
    assert look.post(url("change", Source, source.pk), {"name": "Mine"}).status_code == 403
    assert look.get(url("add", Source)).status_code == 403
    assert look.post(url("add", Source), form(collection)).status_code == 403
    for action in ("sync_now", "sync_empty", "cancel", "remove"):
        assert do(look, action, source).status_code == 403
    listed = {"action": "sync_selected", "_selected_action": str(source.pk)}
    look.post(url("changelist", Source), listed)
    assert in_tenant(tenant, SyncRun.objects.count) == 0 and again(source).name == "Harbour files"
    nobody = sign_in(make_curator(tenant, superuser=False, permissions=("view_document",)))
    for page_name in ("changelist", "add"):
        assert nobody.get(url(page_name, Source)).status_code == 403
    assert nobody.get(url("change", Source, source.pk)).status_code == 403
    assert "Harbour files" not in text_of(nobody.get("/admin/"))


def test_whoever_may_change_but_not_delete_documents_deletes_none(tenant: Tenant, source: Source, desk: Client) -> None:
    do(desk, "sync_now", source)
    work_on(source)
    wanted = ("view_source", "change_source", "delete_source")
    change = sign_in(make_curator(tenant, superuser=False, permissions=wanted))
    assert offered(change, source) == {"sync_now", "remove"}
    assert 'name="documents"' not in text_of(change.get(reverse("admin:documents_source_remove", args=[source.pk])))
    do(change, "remove", source, documents="on")
    assert in_tenant(tenant, Source.objects.count) == 0
    assert in_tenant(tenant, lambda: set(Document.objects.values_list("state", flat=True))) == {"pending"}


def test_another_tenants_source_is_not_there(other_tenant: Tenant, source: Source, collection: Collection) -> None:
    theirs = sign_in(make_curator(other_tenant))
    response = theirs.get(url("change", Source, source.pk), follow=True)
    assert "doesn’t exist" in text_of(response) and "Harbour files" not in text_of(response)
    assert theirs.post(url("change", Source, source.pk), {"name": "Mine"}).status_code == 302
    for action in ("sync_now", "sync_empty", "cancel", "remove"):
        assert do(theirs, action, source).url == "/admin/"
    refused = theirs.post(url("add", Source), form(collection))
    assert list(refused.context_data["adminform"].form.errors) == ["collection"]
    assert again(source).name == "Harbour files"


def test_beats_own_table_of_all_tenants_is_not_at_the_desk() -> None:
    assert not [model for model in admin.site._registry if model._meta.app_label == "django_celery_beat"]
    with pytest.raises(NoReverseMatch):
        reverse("admin:django_celery_beat_periodictask_changelist")
