"""What the desk shows of a source's runs: the last result in lists, and the tables of its page."""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from django.utils import timezone
from django.utils.formats import localize
from django.utils.html import format_html_join
from django.utils.timesince import timesince

from ..models import Document, Source, SyncRun
from ..sources import standing
from ..sources.standing import Dressed
from .shown import RUN_STATES, failure, label, link, one_line

State = SyncRun.State
RUNS, FAILURES = 10, 50  # shown at most
FAILING = Q(last_state=State.FAILED, enabled=True)


def result(source: Dressed) -> str:
    """The state of the last run, and that of the open one beside it, as coloured labels."""
    shown = [(state_label(run),) for run in (source.last, source.open) if run is not None]
    return format_html_join(" ", "{}", shown) or "–"


def state_label(run: SyncRun) -> str:
    """Orange where it was done but could not take everything."""
    incomplete = run.state == State.DONE and run.counts.get("failed")
    return label(run.state, "warning" if incomplete else RUN_STATES[run.state])


def outcome(run: SyncRun | None) -> str:
    """What came of a run, as in "+3 ~1 −2, 1 failed"; why it failed."""
    if run is None:
        return "–"
    return (run.error or {}).get("code", "failed") if run.state == State.FAILED else counts(run)


def counts(run: SyncRun) -> str:
    """As in "+3 ~1 −2, 1 failed": new, changed, removed."""
    if not run.counts:
        return "–"
    signs = {"new": "+", "changed": "~", "removed": "−"}
    moved = " ".join(f"{sign}{run.counts[name]}" for name, sign in signs.items() if run.counts.get(name))
    failed = f"{run.counts['failed']} failed" if run.counts.get("failed") else ""
    return ", ".join(filter(None, (moved, failed))) or ("nothing new" if run.state == State.DONE else "–")


def ago(run: SyncRun | None) -> str:
    """When it ended."""
    if run is None or run.finished_at is None:
        return "–"
    passed = timezone.now() - run.finished_at
    return "just now" if passed.total_seconds() < 60 else f"{timesince(run.finished_at, depth=1)} ago"


def tables(source: Dressed) -> dict[str, Any]:
    """The last runs, and what failed."""
    return {"runs": _runs(source), "failures": _failures(source)}


def _runs(source: Source) -> dict[str, Any]:
    return {
        "title": "Last runs (+ new, ~ changed, − removed)",
        "headers": ["When", "Trigger", "State", "Took", "Items", "Counts", "Error"],
        "rows": [
            [
                localize(timezone.localtime(run.created_at)),
                run.trigger,
                state_label(run),
                _took(run),
                run.counts.get("found", "–"),
                counts(run),
                failure(run.error) or "–",
            ]
            for run in SyncRun.objects.filter(source=source).order_by("-created_at")[:RUNS]
        ],
    }


def _took(run: SyncRun) -> str:
    if run.started_at is None:
        return "–"
    seconds = ((run.finished_at or timezone.now()) - run.started_at).total_seconds()
    return f"{seconds:.1f} s" if seconds < 60 else timesince(run.started_at, run.finished_at)


def _failures(source: Dressed) -> dict[str, Any]:
    """The items that failed; and of the last run what is no item of this source, such as another's."""
    failing = standing.failed_items(source)
    items = list(failing.order_by("key")[:FAILURES])
    standing.with_documents(items)
    rows = {item.key: (item.failure, item.document) for item in items}  # type: ignore[attr-defined]
    for told in source.last.failures if source.last else []:
        rows.setdefault(told["source_uri"], (told, None))
    count = failing.count()
    return {
        "title": "Failed" + (f": the first {FAILURES} of {count}" if count > FAILURES else ""),
        "headers": ["Item", "Reason", "What searches find"],
        "rows": [[one_line(key, 120), failure(error), _found(document)] for key, (error, document) in rows.items()],
    }


def _found(document: Document | None) -> str:
    """Of a failed item: what answers meanwhile."""
    if document is None:
        return "nothing"
    text = "no version" if document.live_version is None else f"version {document.live_version}"
    return link("documents_document_change", text, document.pk)
