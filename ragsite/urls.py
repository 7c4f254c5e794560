"""Every URL of the site."""

from __future__ import annotations

import sys

from django.contrib import admin
from django.http import HttpRequest, HttpResponseBase
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.negotiation import DefaultContentNegotiation

from apps.access.problems import Problem, as_problem, page

from . import health

HOOKS = ["drf_spectacular.hooks.postprocess_schema_enums", "apps.access.openapi.add_refusals"]

schema = SpectacularAPIView.as_view(
    custom_settings={"POSTPROCESSING_HOOKS": HOOKS}, content_negotiation_class=DefaultContentNegotiation
)

urlpatterns = [
    path("", RedirectView.as_view(url="/api/docs/")),
    path("admin/", admin.site.urls),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.MetricsView.as_view()),
    path("api/schema/", schema, name="schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(url_name="schema")),
    path("api/v1/", include("apps.retrieval.urls")),  # first: patterns are tried one after another
    path("api/v1/", include("apps.documents.urls")),
    path("api/v1/", include("apps.generation.urls")),
    path("api/v1/", include("apps.evaluation.urls")),
    path("v1/", include("apps.generation.openai_urls")),
]


def _not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    return page(request, Problem(404, "not_found", "There is no such page."))


def _failed(request: HttpRequest) -> HttpResponseBase:
    """What a middleware or a page raised: Django calls this while it handles the exception."""
    error = sys.exc_info()[1]
    problem = as_problem(error) if isinstance(error, Exception) else Problem(500, "internal", "Something went wrong.")
    return page(request, problem)


def _refused(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    return page(request, as_problem(exception))


handler400, handler404, handler500 = _refused, _not_found, _failed
