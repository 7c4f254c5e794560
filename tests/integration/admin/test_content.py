"""Curating collections, documents and jobs does what it says."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import collections, reindex, second_space, spaces
from apps.documents.models import Chunk, Collection, Document, DocumentVersion, IngestionJob, Reindex
from tests.support.desk import Ingest, collection_form, in_tenant, text_of, url


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
        ({"reindexing_schedule": "every day"}, "reindexing_schedule"),
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


def test_a_collections_page_tells_of_its_second_space(desk: Client, collection: Collection, document: Document) -> None:
    page = f"/admin/documents/collection/{collection.pk}/change/"
    assert "Second embedding space" in desk.get(page).content.decode()
    space = spaces.create(slug=f"desk-{uuid4().hex[:6]}", backend="fake", model="fake", dimensions=8)
    space = second_space.find(space.slug)
    with tenancy.scope(collection.tenant_id):
        second_space.begin(space=space)
    assert f"{space.slug}, being built: 0 vectors so far" in desk.get(page).content.decode()
    second_space.drain()
    with tenancy.scope(collection.tenant_id):
        second_space.canary(space=space, percent=12.5)
    shown = desk.get(page).content.decode()
    assert f"{space.slug}, kept up with every write, answers 12.5 % of the searches" in shown


def test_a_name_taken_meanwhile_is_a_message(
    desk: Client, tenant: Tenant, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apps.documents.admin.collections import CollectionForm

    monkeypatch.setattr(CollectionForm, "clean_slug", lambda form: form.cleaned_data["slug"])
    response = desk.post(url("add", Collection), collection_form(slug="docs"), follow=True)
    assert response.status_code == 200 and "There is a collection" in text_of(response)
    assert in_tenant(tenant, lambda: collections.find("docs").name) == "Docs"


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


def test_reindexing_is_begun_paused_resumed_and_cancelled_at_the_collections_page(
    desk: Client, tenant: Tenant, document: Document
) -> None:
    page = url("change", Collection, document.collection_id)

    def act(action: str, **form: str) -> str:
        path = reverse(f"admin:documents_collection_{action}", args=[document.collection_id])
        assert path in text_of(desk.get(page)), "offered"
        assert desk.get(path).status_code == 200  # a link alone does nothing
        assert desk.post(path, {"_form_submitted": "on"} | form)["HX-Redirect"] == page
        return text_of(desk.get(page))

    def states() -> list[tuple[str, bool]]:
        return in_tenant(
            tenant, lambda: list(Reindex.objects.order_by("created_at").values_list("state", "everything"))
        )

    assert "Looked at" not in text_of(desk.get(page)) and states() == []
    shown = act("reindex", everything="on")
    assert "Reindexing has begun." in shown and "manual, everything" in shown and "0 of 1" in shown
    assert states() == [("running", True)]
    for missing in ("reindex", "resume_reindex"):
        assert reverse(f"admin:documents_collection_{missing}", args=[document.collection_id]) not in shown
    again = reverse("admin:documents_collection_reindex", args=[document.collection_id])
    assert desk.post(again, {"_form_submitted": "on"})["HX-Redirect"] == page
    assert "being reindexed already" in text_of(desk.get(page)) and len(states()) == 1
    assert "Reindexing is paused." in act("pause_reindex") and states() == [("paused", True)]
    assert "Reindexing goes on." in act("resume_reindex") and states() == [("running", True)]
    assert "Reindexing was cancelled." in act("cancel_reindex") and states() == [("cancelled", True)]
    act("reindex")
    assert states()[1:] == [("running", False)]
    act("cancel_reindex")
    noted = in_tenant(tenant, lambda: list(LogEntry.objects.values_list("change_message", flat=True)))
    assert "Reindexing was cancelled." in noted


def test_changed_chunking_is_followed_by_a_run(desk: Client, tenant: Tenant, document: Document) -> None:
    page = url("change", Collection, document.collection_id)
    assert "cut anew in the background" in text_of(desk.get(page))
    assert desk.post(page, collection_form(chunking_max_tokens=64)).status_code == 302
    assert in_tenant(tenant, lambda: Reindex.objects.get().trigger) == "settings"
    assert "running" in text_of(desk.get(page))
    in_tenant(tenant, lambda: reindex.cancel(run_id=Reindex.objects.get().pk))


def test_a_documents_page_names_it_as_it_is_and_tells_a_versions_notes(
    desk: Client, tenant: Tenant, document: Document
) -> None:
    def note() -> None:
        DocumentVersion.objects.filter(document=document).update(notes=["Page 2 is a picture.", "So is page 3."])
        Document.objects.filter(pk=document.pk).update(title="harbour-notes.md")

    in_tenant(tenant, note)
    page = desk.get(url("change", Document, document.pk))
    versions = page.context_data["versions"]
    assert versions["rows"][0][versions["headers"].index("Notes")] == "Page 2 is a picture. (and 1 more)"
    breadcrumbs = text_of(page).split("<main")[0].split("chevron_right")
    assert "harbour-notes.md" in breadcrumbs[-1] and "Documents" in breadcrumbs[-2]
    assert 'rel="icon" href="data:image/svg' in text_of(page)  # else each visit asks for one that is not there
