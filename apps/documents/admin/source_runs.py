"""What the desk shows of a source's runs: the last result in lists, and the tables of its page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.utils import timezone
from django.utils.formats import localize
from django.utils.html import format_html_join
from django.utils.timesince import timesince

from ..models import Source, SourceItem, SyncRun
from .shown import RUN_STATES, failure, label, link, one_line

State = SyncRun.State
RUNS, FAILURES = 10, 50  # shown at most
FAILING = Q(last_state=State.FAILED, enabled=True)

#: A source with what `with_runs` and `dress` put on it.
Dressed = Any


def with_runs(sources: QuerySet[Source]) -> QuerySet[Source]:
    """Each with `last_id` and `last_state`, of the newest run that has ended, and `open_id`, of the one under way."""
    runs = SyncRun.objects.filter(source=OuterRef("pk")).order_by("-created_at")
    ended, going = runs.exclude(finished_at=None), runs.filter(state__in=[State.QUEUED, State.RUNNING])
    return sources.annotate(
        last_id=Subquery(ended.values("id")[:1]),
        last_state=Subquery(ended.values("state")[:1]),
        open_id=Subquery(going.order_by("-state").values("id")[:1]),  # rather the one that runs
    )


def dress(sources: Iterable[Dressed]) -> None:
    """`last` and `open`: those runs, in one query for all."""
    wanted = [run for source in sources for run in (source.last_id, source.open_id) if run is not None]
    found = SyncRun.objects.in_bulk(wanted)
    for source in sources:
        source.last, source.open = found.get(source.last_id), found.get(source.open_id)


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
    """The last runs, and what could not be taken."""
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
    """The items that could not be taken; and of the last run what is no item of this source, such as another's."""
    failing = SourceItem.objects.filter(source=source, error__isnull=False)
    rows = {item.key: (item.error, item.document_id) for item in failing.order_by("key")[:FAILURES]}
    for told in source.last.failures if source.last else []:
        rows.setdefault(told["source_uri"], (told, None))
    count = failing.count()
    return {
        "title": "Could not be taken" + (f": the first {FAILURES} of {count}" if count > FAILURES else ""),
        "headers": ["Item", "Reason", "Document"],
        "rows": [
            [
                one_line(key, 120),
                failure(error),
                "–" if document is None else link("documents_document_change", "an older version", document),
            ]
            for key, (error, document) in rows.items()
        ],
    }
