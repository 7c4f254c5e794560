"""The curators' desk: every page answers, and a tenant is a wall."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth import authenticate
from django.db import transaction
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.urls import reverse

from apps.access import tenancy
from apps.access.models import ApiKey, Tenant, User
from apps.documents.admin.dashboard import dashboard
from apps.documents.models import Collection, Document, EmbeddingSpace, IngestionJob, Reindex, Source, SyncRun
from apps.evaluation.models import EvaluationRun, EvaluationSet
from apps.generation import answers, queries
from apps.generation.models import Answer, Conversation, Query, WeeklyReport
from apps.generation.types import AnswerRequest
from tests.support.desk import MODELS, PASSWORD, in_tenant, make_curator, sign_in, text_of, url

SOURCE_ACTIONS = ("sync_now", "sync_empty", "cancel", "remove")


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
    for model in (Collection, Source, ApiKey, User):
        assert desk.get(url("add", model)).status_code == 200
    for model in (Document, IngestionJob, EmbeddingSpace, Answer, Query, WeeklyReport, EvaluationSet, EvaluationRun):
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
    listed = ((Document, "delete_selected"), (Source, "sync_selected"), (IngestionJob, "retry"), (ApiKey, "revoke"))
    for model, action in listed:
        form = {"action": action, "_selected_action": str(owned[model]), "post": "yes"}
        assert theirs.post(url("changelist", model), form).status_code in (200, 302)
    single = ((IngestionJob, "retry_one"), (ApiKey, "revoke_one"), (Collection, "reindex"))
    for model, action in (*single, *((Source, name) for name in SOURCE_ACTIONS)):
        path = reverse(f"admin:{model._meta.label_lower.replace('.', '_')}_{action}", args=[owned[model]])
        assert theirs.post(path, {"_form_submitted": "on"}).status_code == 302
    assert theirs.post(url("delete", Collection, owned[Collection]), {"post": "yes"}).status_code == 302
    assert in_tenant(tenant, lambda: Document.objects.get(pk=owned[Document]).deleted_at) is None
    assert in_tenant(tenant, lambda: IngestionJob.objects.get(pk=owned[IngestionJob]).state) == "dead"
    assert in_tenant(tenant, lambda: ApiKey.objects.get(pk=owned[ApiKey]).revoked_at) is None
    assert in_tenant(tenant, Source.objects.count) == 1 and in_tenant(tenant, SyncRun.objects.count) == 0
    assert not in_tenant(tenant, Reindex.objects.exists)


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


def test_the_last_results_are_shown(desk: Client, measured: EvaluationRun) -> None:
    for page in (url("changelist", EvaluationSet), url("change", EvaluationSet, measured.set_id)):
        shown = text_of(desk.get(page))
        assert "Harbour questions" in shown and "nDCG@10: lexical 1.000" in shown
    shown = text_of(desk.get(url("change", EvaluationRun, measured.pk)))
    assert "Who counts ships in the harbour?" in shown and "nDCG@10: lexical 1.000" in shown
    for model, pk in ((EvaluationSet, measured.set_id), (EvaluationRun, measured.pk)):
        assert desk.post(url("change", model, pk), {"name": "x"}).status_code == 403
        assert desk.post(url("delete", model, pk), {"post": "yes"}).status_code == 403


def test_curators_see_answers_with_their_feedback(desk: Client, tenant: Tenant, answered: Answer) -> None:
    again = answers.replay(tenant_id=tenant.id, answer_id=answered.pk)
    listed = text_of(desk.get(url("changelist", Answer)))
    assert "Who counts ships at the harbour?" in listed and "The lighthouse keeper counts ships." in listed
    assert "👍 1 👎 1" in listed and "100%" in listed and "extractive" in listed
    shown = text_of(desk.get(url("change", Answer, answered.pk)))
    assert "Harbour pilots agree." in shown and "He &lt;b&gt;sleeps&lt;/b&gt;." in shown and "app down" in shown
    [citation] = answered.result["citations"]
    place = reverse("admin:documents_document_version", args=[citation["document_id"], citation["version"]])
    assert f"{place}?start={citation['start']}&amp;end={citation['end']}" in shown.replace("&end", "&amp;end")
    assert url("change", Answer, answered.pk) in text_of(desk.get(url("change", Answer, again["id"])))
    for query, count in (
        *(("", 2), ("feedback__rating=down", 1), ("grounded=whole", 2), ("grounded=some", 0), ("grounded=none", 0)),
        *(("abstained__exact=1", 0), ("model=extractive", 2), ("model=other", 0), ("q=lighthouse", 2), ("q=zebra", 0)),
        (f"q={answered.pk}", 1),
    ):
        page = desk.get(f"{url('changelist', Answer)}?{query}")
        shown = [pk for pk in (answered.pk, again["id"]) if url("change", Answer, pk) in text_of(page)]
        assert page.status_code == 200 and len(shown) == count, query
    assert desk.post(url("change", Answer, answered.pk), {"question": "x"}).status_code == 403
    assert desk.post(url("delete", Answer, answered.pk), {"post": "yes"}).status_code == 403


def test_curators_see_the_turns_of_a_conversation(desk: Client, tenant: Tenant, answered: Answer) -> None:
    with tenancy.scope(tenant.id):
        talk = Conversation.objects.create(tenant_id=tenant.id)
    turns = [
        answers.answer(tenant_id=tenant.id, request=AnswerRequest(question, model="extractive", conversation=talk.id))
        for question in ("Who counts ships at the harbour?", "And since when does she do that?")
    ]
    shown = text_of(desk.get(url("change", Answer, turns[1]["id"])))
    assert "2 turns" in shown and f"?q={talk.pk}" in shown
    assert turns[1]["standalone_question"] in shown
    listed = text_of(desk.get(f"{url('changelist', Answer)}?q={talk.pk}"))
    assert all(url("change", Answer, turn["id"]) in listed for turn in turns)
    assert url("change", Answer, answered.pk) not in listed
    assert "turns" not in text_of(desk.get(url("change", Answer, answered.pk)))


def test_queries_are_retried_and_cancelled(desk: Client, tenant: Tenant, asked: Query) -> None:
    def act(action: str) -> str:
        form = {"action": action, "_selected_action": str(asked.pk)}
        return text_of(desk.post(url("changelist", Query), form, follow=True))

    assert "0 of 1 queued again" in act("retry")
    assert "1 of 1 cancelled" in act("cancel")
    assert "cancelled: The query was cancelled." in text_of(desk.get(url("change", Query, asked.pk)))
    in_tenant(tenant, lambda: Query.objects.filter(pk=asked.pk).update(state="dead"))
    assert "1 of 1 queued again" in act("retry")
    assert queries.work()
    page = text_of(desk.get(url("change", Query, asked.pk)))
    assert reverse("admin:generation_answer_change", args=[asked.pk]) in page
    assert "sheep" in text_of(desk.get(url("changelist", Query), {"q": "counts sheep"}))


def test_curators_see_what_was_answered_badly(desk: Client, answered: Answer, reported: WeeklyReport) -> None:
    assert str(reported.week.year) in text_of(desk.get(url("changelist", WeeklyReport)))
    shown = text_of(desk.get(url("change", WeeklyReport, reported.pk)))
    assert "Who counts ships at the harbour?" in shown and "voted down" in shown
    assert "He &lt;b&gt;sleeps&lt;/b&gt;." in shown and url("change", Answer, answered.pk) in shown
    assert desk.post(url("delete", WeeklyReport, reported.pk), {"post": "yes"}).status_code == 403
