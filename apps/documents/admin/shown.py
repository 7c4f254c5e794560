"""What several pages of the desk show the same way."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import localize
from django.utils.html import format_html
from unfold.views import ChangeList

from ..collections import Progress

DOCUMENT_STATES = {
    "live": "success",
    "pending": "info",
    "processing": "info",
    "stale": "warning",
    "failed": "danger",
    "deleted": "",
}
JOB_STATES = {"done": "success", "queued": "info", "running": "info", "dead": "danger", "cancelled": "warning"}
RUN_STATES = {"done": "success", "queued": "info", "running": "info", "failed": "danger", "cancelled": "warning"}


class DressedList(ChangeList):
    """A list whose page gets what no join can bring: `model_admin.dress(rows)` sets it on the rows in one query."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list: list[Any] = list(self.result_list)
        self.model_admin.dress(self.result_list)


def link(name: str, text: object, *args: object, query: str = "") -> str:
    """An anchor to a page of the admin, such as `documents_document_change`."""
    anchor = '<a class="text-primary-600 dark:text-primary-500" href="{}{}">{}</a>'
    return format_html(anchor, reverse(f"admin:{name}", args=args), query, text)


def label(text: str, kind: str) -> str:
    """A coloured label; kind: success, info, warning or danger."""
    return render_to_string("unfold/helpers/label.html", {"text": text, "type": kind})


def one_line(text: str, at_most: int) -> str:
    """A preview: white space folded, cut with an ellipsis."""
    folded = " ".join(text[: at_most * 4].split())
    return folded if len(folded) <= at_most and len(text) <= at_most * 4 else folded[: at_most - 1] + "…"


def failure(error: dict[str, Any] | None) -> str:
    """The code and the sentence of a ledger's error."""
    return "" if not error else f"{error.get('code', 'failed')}: {error.get('detail', '')}"


def when(moment: datetime | None) -> str:
    return "–" if moment is None else localize(timezone.localtime(moment))


def number(request: HttpRequest, name: str, default: int = 0, *, below: int = 2**31) -> int:
    """A whole number of the query string, 0 or more and under `below`; else the default: no link is worth an error."""
    try:
        value = int(request.GET.get(name, default))
    except ValueError:
        return default
    return value if 0 <= value < below else default


def as_uuid(text: str) -> UUID | None:
    """The id that a search term is, or None."""
    try:
        return UUID(text.strip())
    except ValueError:
        return None


def pending(going: Progress) -> str:
    """How many documents wait, and about how long."""
    if not going.pending or going.eta_seconds is None:
        return str(going.pending)
    minutes = -(-going.eta_seconds // 60)
    return f"{going.pending} (about {minutes} min)" if minutes < 120 else f"{going.pending} (about {minutes // 60} h)"
