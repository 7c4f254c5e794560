"""The curators' desk as tests use it: signing in, addresses of pages, forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from apps.access import tenancy
from apps.access.models import ApiKey, Tenant, User
from apps.documents.accept import Accepted
from apps.documents.models import Collection, Document, EmbeddingSpace, IngestionJob, Source
from apps.evaluation.models import EvaluationRun, EvaluationSet
from apps.generation.models import Answer, Query, WeeklyReport

PASSWORD = "correct horse battery"
MODELS = (
    *(Collection, Document, Source, IngestionJob, EmbeddingSpace, Answer, Query, WeeklyReport),
    *(EvaluationSet, EvaluationRun, ApiKey, User),
)
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
        "chunking_heading_level": 2,
        "consistency_mode": "write_back",
        "consistency_window_seconds": 30,
        "reindexing_schedule": "",
        "space": EmbeddingSpace.objects.order_by("created_at")[0].pk,
    } | changes


def in_tenant(tenant: Tenant, query: Callable[[], Any]) -> Any:
    with tenancy.scope(tenant.id):
        return query()
