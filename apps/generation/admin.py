"""Answers at the desk, to look at: what was asked, what was said, from what, and what readers say of it; and queries,
which may be retried and cancelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from unfold.decorators import action, display

from apps.documents.admin.read_only import ReadOnlyAdmin
from apps.documents.admin.shown import JOB_STATES, DressedList, as_uuid, failure, label, link, one_line, when

from . import queries, reports
from .models import Answer, Feedback, Query, WeeklyReport

FEEDBACK, LISTED = 100, 100  # shown at most
RATINGS: dict[str, tuple[str, str]] = {
    Feedback.Rating.UP: ("👍", "success"),
    Feedback.Rating.DOWN: ("👎", "danger"),
}


class GroundedFilter(admin.SimpleListFilter):
    title = "grounded"
    parameter_name = "grounded"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("none", "Nothing is"), ("some", "A part is"), ("whole", "All of it is")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Answer]) -> QuerySet[Answer]:
        answered = queryset.filter(abstained=False)
        if self.value() == "some":
            return answered.filter(grounded__gt=0, grounded__lt=1)
        return answered.filter(grounded=self.value() == "whole") if self.value() in ("none", "whole") else queryset


@admin.register(Answer)
class AnswerAdmin(ReadOnlyAdmin):
    list_display = ("asked", "said", "shown_grounded", "model", "ratings", "created_at")
    list_filter = ("feedback__rating", GroundedFilter, "abstained", "model", "created_at")
    search_fields = ("question", "answer")
    search_help_text = "Words of a question or an answer, or the id of an answer or a conversation"
    ordering = ("-created_at",)
    fields = (
        *("question", "understood", "conversation_turns", "answer"),
        *(("shown_grounded", "model", "prompt_version"), "parameters", "client"),
        *(("created_at", "replay", "id"), "difference"),
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[DressedList]:
        return DressedList

    def dress(self, rows: Sequence[Answer]) -> None:
        """`votes`: how many ratings of each kind."""
        votes: dict[Any, Counter[str]] = {row.pk: Counter() for row in rows}
        counted = Feedback.objects.filter(answer__in=votes).values_list("answer", "rating").annotate(Count("id"))
        for answer_id, rating, count in counted.order_by():
            votes[answer_id][rating] = count
        for row in rows:
            row.votes = votes[row.pk]  # type: ignore[attr-defined]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Answer], search_term: str
    ) -> tuple[QuerySet[Answer], bool]:
        wanted = as_uuid(search_term)
        if wanted is not None:
            return queryset.filter(Q(id=wanted) | Q(conversation=wanted)), False
        return super().get_search_results(request, queryset, search_term)

    @display(description="Understood as", empty_value="–")
    def understood(self, answer: Answer) -> str | None:
        """The question as it was searched for, in the light of what was said before."""
        question = answer.result.get("standalone_question")
        return None if question == answer.question else question

    @display(description="Conversation", empty_value="–")
    def conversation_turns(self, answer: Answer) -> str | None:
        if answer.conversation_id is None:
            return None
        turns = Answer.objects.filter(conversation=answer.conversation_id).count()
        said = "1 turn" if turns == 1 else f"{turns} turns"
        return link("generation_answer_changelist", said, query=f"?q={answer.conversation_id}")

    @display(description="Question", ordering="question")
    def asked(self, answer: Answer) -> str:
        return one_line(answer.question, 60)

    @display(description="Answer")
    def said(self, answer: Answer) -> str:
        return one_line(answer.answer, 80)

    @display(description="Grounded", ordering="grounded")
    def shown_grounded(self, answer: Answer) -> str:
        return "abstained" if answer.abstained else f"{answer.grounded:.0%}"

    @display(description="Feedback")
    def ratings(self, answer: Answer) -> str:
        votes = answer.votes  # type: ignore[attr-defined]
        return " ".join(f"{sign} {votes[rating]}" for rating, (sign, _) in RATINGS.items() if votes[rating]) or "–"

    @display(description="Parameters")
    def parameters(self, answer: Answer) -> str:
        """What the model was given beside the messages, where something was."""
        given = answer.context["parameters"].items()
        return ", ".join(f"{name} {value}" for name, value in given if value not in (None, []))

    @display(description="Asked by", empty_value="–")
    def client(self, answer: Answer) -> str | None:
        """What a chat's client said of itself."""
        said = {"user": answer.request["user"]} | (answer.request["metadata"] or {})
        return ", ".join(f"{name} {value}" for name, value in said.items() if value) or None

    @display(description="Replay of", empty_value="–")
    def replay(self, answer: Answer) -> str | None:
        before = answer.replay_of_id
        return None if before is None else link("generation_answer_change", before, before)

    @display(description="Difference", empty_value="–")
    def difference(self, answer: Answer) -> str | None:
        found = answer.result.get("difference")
        if found is None or found["same"]:
            return found and "none"
        return found["answer_diff"] or "other citations"

    def tables(self, answer: Answer) -> list[dict[str, Any]]:
        return [_feedback(answer), _passages(answer)]


@admin.register(WeeklyReport)
class WeeklyReportAdmin(ReadOnlyAdmin):
    list_display = ("week", "answers", "voted_down", "ungrounded", "abstained", "created_at")
    search_fields = ("week",)
    ordering = ("-week",)
    fields = ("week", ("answers", "voted_down", "ungrounded", "abstained"), "created_at")

    def tables(self, report: WeeklyReport) -> list[dict[str, Any]]:
        rows = [
            [
                link("generation_answer_change", one_line(row.answer.question, 100), row.answer_id),
                one_line(row.answer.answer, 120),
                ", ".join(reason.replace("_", " ") for reason in row.reasons),
                f"{row.answer.grounded:.0%}",
                one_line("; ".join(each.comment for each in row.answer.feedback.all() if each.comment), 200) or "–",
            ]
            for row in reports.listed(report)[:LISTED]
        ]
        headers = ["Question", "Answer", "Why", "Grounded", "Comments"]
        return [{"title": "Answers, the worst first", "headers": headers, "rows": rows}]


@admin.register(Query)
class QueryAdmin(ReadOnlyAdmin):
    list_display = ("asked", "shown_state", "priority", "attempts", "code", "created_at", "finished_at")
    list_filter = ("state", "priority", "created_at")
    search_fields = ("request__question",)
    search_help_text = "Words of a question, or a query's id"
    ordering = ("-created_at",)
    actions = ("retry", "cancel")  # type: ignore[assignment]
    fields = (
        *("question", ("shown_state", "priority", "attempts"), "problem", "answered"),
        *(("worker", "lease_until", "not_before"), ("created_at", "started_at", "finished_at"), "id"),
    )

    def has_act_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return request.user.has_perm("generation.change_query")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Query], search_term: str
    ) -> tuple[QuerySet[Query], bool]:
        wanted = as_uuid(search_term)
        if wanted is not None:
            return queryset.filter(id=wanted), False
        return super().get_search_results(request, queryset, search_term)

    @display(description="Question")
    def asked(self, query: Query) -> str:
        return one_line(query.request["question"], 60)

    @display(description="Question")
    def question(self, query: Query) -> str:
        return query.request["question"]

    @display(description="State", label=JOB_STATES | {"failed": "danger"}, ordering="state")
    def shown_state(self, query: Query) -> str:
        return query.state

    @display(description="Error", empty_value="–")
    def code(self, query: Query) -> str | None:
        return query.error and query.error["code"]

    @display(description="Error", empty_value="–")
    def problem(self, query: Query) -> str | None:
        return failure(query.error) or None

    @display(description="Answer", empty_value="–")
    def answered(self, query: Query) -> str | None:
        found = query.answer
        return None if found is None else link("generation_answer_change", one_line(found.answer, 100), found.id)

    @action(description="Retry the selected failed or dead queries", permissions=["act"])
    def retry(self, request: HttpRequest, chosen: QuerySet[Query]) -> None:
        self._act(request, chosen, queries.retry, "queued again")

    @action(description="Cancel the selected open queries", permissions=["act"])
    def cancel(self, request: HttpRequest, chosen: QuerySet[Query]) -> None:
        self._act(request, chosen, queries.cancel, "cancelled")

    def _act(self, request: HttpRequest, chosen: QuerySet[Query], verb: Callable[..., bool], done: str) -> None:
        rows = list(chosen)
        changed = [row for row in rows if verb(query_id=row.id)]
        for row in changed:
            self.log_change(request, row, done)
        text = f"{len(changed)} of {len(rows)} {done}"
        if len(changed) < len(rows):
            messages.warning(request, f"{text}; the state of the others does not allow it.")
        else:
            messages.success(request, f"{text}.")

    def tables(self, query: Query) -> list[dict[str, Any]]:
        return []


def _feedback(answer: Answer) -> dict[str, Any]:
    found = answer.feedback.select_related("key").order_by("-created_at")[:FEEDBACK]
    rows = [
        [when(each.created_at), label(*RATINGS[each.rating]), each.comment or "–", ", ".join(each.tags), each.key.name]
        for each in found
    ]
    return {"title": "Feedback", "headers": ["When", "Rating", "Comment", "Tags", "Key"], "rows": rows}


def _passages(answer: Answer) -> dict[str, Any]:
    """What the model was given, and what of it is cited; the link marks the place in the version's text."""
    cited = {each["marker"]: each for each in answer.result["citations"]}
    rows = []
    for passage in answer.context["passages"]:
        found = cited.get(passage["marker"], passage)
        span = f"?start={found['start']}&end={found['end']}"
        name = one_line(passage["title"] or passage["source_uri"], 60)
        place = link("documents_document_version", name, passage["document_id"], passage["version"], query=span)
        rows.append([passage["marker"], place, passage["version"], one_line(found.get("quote", ""), 200) or "–"])
    return {"title": "Passages", "headers": ["Marker", "Document", "Version", "Quoted"], "rows": rows}
