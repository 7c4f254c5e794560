"""A report each week of the questions that were answered badly, for curators to look at.

A row per tenant and week, and one for each answer that is listed. Neither holds any text: it is shown from the answers,
and goes with them.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q, QuerySet
from django.utils import timezone

from apps.access import tenancy
from apps.access.problems import Problem

from .feedback import show as show_feedback
from .models import Answer, Feedback, LowAnswer, WeeklyReport

Reason = LowAnswer.Reason
#: An answer is ungrounded when less than this share of its sentences is supported.
LOW = 0.5
MOST = 500  # answers listed; all are counted
WEEKS = 4  # that have ended are looked at: beat may have been away
#: After the end of a week; answers are dated before they are committed.
WAIT = timedelta(hours=1)
WEEK = timedelta(days=7)


def write_due(now: datetime | None = None) -> int:
    """Outside of a scope: write the reports of the last weeks that are missing, of all tenants who asked something or
    said something of an answer; how many. Beat's tick may be lost, late or doubled."""
    return sum(
        write(tenant_id=tenant_id, week=week)
        for week in _weeks(timezone.now() if now is None else now)
        for tenant_id in _unreported(week)
    )


def write(*, tenant_id: UUID, week: date) -> bool:
    """The report of the week that began on this Monday; False where it has been written."""
    begins, ends = _span(week)
    within = Q(created_at__gte=begins, created_at__lt=ends)
    ungrounded = Q(abstained=False, grounded__lt=LOW)
    with tenancy.scope(tenant_id):
        asked = Answer.objects.filter(within, replay_of=None)
        # Of whatever answer: one that was given last week may be voted down in this one.
        votes = Feedback.objects.filter(within, rating=Feedback.Rating.DOWN, answer__replay_of=None)
        down = set(votes.values_list("answer", flat=True))
        counts = {
            "answers": asked.count(),
            "voted_down": len(down),
            "ungrounded": asked.filter(ungrounded).count(),
            "abstained": asked.filter(abstained=True).count(),
        }
        report, written = WeeklyReport.objects.get_or_create(tenant_id=tenant_id, week=week, defaults=counts)
        if not written:
            return False
        low = asked.filter(Q(abstained=True) | ungrounded) | Answer.objects.filter(id__in=down)
        rows = low.values_list("id", "abstained", "grounded")
        worst = sorted(rows, key=lambda row: (row[0] not in down, row[1], row[2]))[:MOST]
        # Held, so that an erasure does not pass them between this look and the commit.
        held = Answer.objects.select_for_update(no_key=True).filter(id__in=[row[0] for row in worst]).order_by("id")
        there = set(held.values_list("id", flat=True))
        LowAnswer.objects.bulk_create(
            LowAnswer(
                tenant_id=tenant_id, report=report, answer_id=id, reasons=_reasons(id in down, abstained, grounded)
            )
            for id, abstained, grounded in worst
            if id in there
        )
    return True


def find(report_id: UUID) -> WeeklyReport:
    """Inside a scope. Raises Problem 404."""
    found = WeeklyReport.objects.filter(id=report_id).first()
    if found is None:
        raise Problem(404, "not_found", "There is no such report.")
    return found


def listed(report: WeeklyReport) -> QuerySet[LowAnswer]:
    """Inside a scope: its answers that are still there, the worst first."""
    return report.low.select_related("answer").prefetch_related("answer__feedback").order_by("id")


def show(report: WeeklyReport) -> dict[str, Any]:
    names = ("id", "week", "answers", "voted_down", "ungrounded", "abstained", "created_at")
    return {name: getattr(report, name) for name in names}


def show_listed(report: WeeklyReport) -> list[dict[str, Any]]:
    """Inside a scope."""
    return [
        {
            "answer_id": row.answer_id,
            "reasons": row.reasons,
            "question": row.answer.question,
            "answer": row.answer.answer,
            "grounded": row.answer.grounded,
            "model": row.answer.model,
            "feedback": [show_feedback(each) for each in row.answer.feedback.all()],
        }
        for row in listed(report)
    ]


def _weeks(now: datetime) -> list[date]:
    """The Mondays of the last weeks that are over, the oldest first."""
    past = (now - WAIT).astimezone(UTC).date()
    this = past - timedelta(days=past.weekday())
    return [this - number * WEEK for number in range(WEEKS, 0, -1)]


def _span(week: date) -> tuple[datetime, datetime]:
    begins = datetime.combine(week, time(), tzinfo=UTC)
    return begins, begins + WEEK


def _unreported(week: date) -> list[UUID]:
    begins, ends = _span(week)
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM generation_unreported(%s, %s, %s)", [week, begins, ends])
        return [tenant_id for (tenant_id,) in cursor.fetchall()]


def _reasons(down: bool, abstained: bool, grounded: float) -> list[str]:
    reasons = {
        Reason.VOTED_DOWN: down,
        Reason.ABSTAINED: abstained,
        Reason.UNGROUNDED: grounded < LOW and not abstained,
    }
    return [reason.value for reason, holds in reasons.items() if holds]
