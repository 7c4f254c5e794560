"""Reindexing at the desk: what a collection's page shows of its runs, and what can be done with one now."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldBooleanSwitchWidget

from .. import reindex
from ..models import Collection, Reindex
from .shown import when

SHOWN = 5
COUNTED = ("queued", "open", "done", "unchanged", "failed", "skipped")
#: What may be done with a collection, by the state of its open run.
ALLOWED: dict[str | None, set[str]] = {
    None: {"reindex"},
    Reindex.State.RUNNING: {"pause_reindex", "cancel_reindex"},
    Reindex.State.PAUSED: {"resume_reindex", "cancel_reindex"},
}


class ReindexForm(BaseDialogForm):
    everything = forms.BooleanField(
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        label="Everything",
        help_text="Also what today's parsers and settings have made.",
    )


def last_runs(collection: Collection) -> dict[str, Any]:
    """The last runs and how far each is, as a table."""
    runs = Reindex.objects.filter(collection=collection).select_related("collection").order_by("-created_at")[:SHOWN]
    headers = [
        "Begun",
        "Why",
        "State",
        "Looked at",
        "Queued",
        "Open",
        "Done",
        "Unchanged",
        "Failed",
        "Skipped",
        "Ended",
    ]
    return {"title": "Reindexing", "headers": headers, "rows": [_row(reindex.show(run)) for run in runs]}


def _row(run: dict[str, Any]) -> list[Any]:
    state = run["state"]
    if run["eta_seconds"]:
        state = f"{state} (about {-(-run['eta_seconds'] // 60)} min)"
    counted = [run[name] for name in COUNTED]
    why = f"{run['trigger']}, everything" if run["everything"] else run["trigger"]
    looked_at = f"{run['looked_at']} of {run['documents']}"
    return [when(run["created_at"]), why, state, looked_at, *counted, when(run["finished_at"])]
