"""Many documents at once: in as few transactions as they allow, and what is wrong with one leaves the others alone."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from django.db import InterfaceError, OperationalError, connection

from apps.access import tenancy
from apps.access.problems import Problem, as_problem

from . import embed, merge, prepare, write_through
from .accept import Accepted, Submission, accept_many
from .engines import engine_for
from .models import Collection, IngestionJob
from .write_through import is_live

Result = Accepted | Problem
Outcome = str | Problem  # merge.MERGED or merge.UNCHANGED


def put(*, collection: Collection, submissions: Sequence[Submission], through: bool = False) -> list[Result]:
    """Accept documents of one collection, outside of a scope; their results in order.

    through: bring small ones live in this process before they are answered for; large ones are waited for, as
    write-through does. Accepting is all there is to do otherwise: the workers go on.
    """
    results: list[Result] = []
    for group in _groups(submissions):
        hold = through and _is_small(group[0])
        while group:
            accepted = _accept(collection, group, hold=hold)
            results += _bring_live(collection, accepted, group) if through else accepted
            group = group[len(accepted) :]
    return results


def put_here(*, collection: Collection, submissions: Sequence[Submission]) -> list[Outcome]:
    """Bring documents live in this process, large ones as well: where there may be no workers. In order."""
    outcomes: dict[int, Outcome] = {}
    small = {at: each for at, each in enumerate(submissions) if _is_small(each)}
    if engine_for(connection).batch > 1:
        for at, told in zip(small, merge.merge(collection=collection, submissions=list(small.values())), strict=True):
            if told is not None:
                outcomes[at] = told
    rest = {at: each for at, each in small.items() if at not in outcomes}
    outcomes |= zip(
        rest, map(_told, put(collection=collection, submissions=list(rest.values()), through=True)), strict=True
    )
    for at, each in enumerate(submissions):
        if at not in outcomes:
            outcomes[at] = _told(_alone(collection, each))
    return [outcomes[at] for at in range(len(submissions))]


def _told(result: Result) -> Outcome:
    return result if isinstance(result, Problem) else merge.UNCHANGED if result.unchanged else merge.MERGED


def _alone(collection: Collection, submission: Submission) -> Result:
    """A large document, stage by stage. A worker that is there may have been faster."""
    result = _accept(collection, [submission], hold=False, wake=False)[0]
    if isinstance(result, Accepted) and result.job is not None:
        prepare.drain(job_id=result.job.id)
        embed.drain(job_id=result.job.id)
        with tenancy.scope(collection.tenant_id):
            ended = IngestionJob.objects.get(id=result.job.id)
        if ended.state == IngestionJob.State.DEAD:
            return write_through.refusal(ended, pointer="/text")
    return result


def _is_small(submission: Submission) -> bool:
    return _size(submission) <= write_through.INLINE_BYTES


def _groups(submissions: Sequence[Submission]) -> Iterator[list[Submission]]:
    """Small documents together, up to what one transaction takes; a large one alone. In order."""
    group: list[Submission] = []
    room = 0
    for each in submissions:
        size = _size(each)
        if group and (size > room or len(group) >= engine_for(connection).batch):
            yield group
            group = []
        if not group:
            room = prepare.BATCH_BYTES
        group.append(each)
        room = room - size if _is_small(each) else 0
    if group:
        yield group


def _size(submission: Submission) -> int:
    return submission.content.seek(0, io.SEEK_END)


def _accept(collection: Collection, group: Sequence[Submission], *, hold: bool, wake: bool = True) -> list[Result]:
    """Of the first few, at least one: `accept_many`, or each alone where that fails for them all."""

    def work() -> list[Result]:
        return list(accept_many(collection=collection, submissions=group, hold=hold, wake=wake))

    try:
        return tenancy.run(collection.tenant_id, work, replan=engine_for(connection).batch == 1)
    except Exception as error:
        away = isinstance(error, OperationalError | InterfaceError) and not tenancy.is_conflict(error)
        if away or len(group) == 1:
            return [as_problem(error)] * len(group)
    return [_accept(collection, [each], hold=hold)[0] for each in group]


def _bring_live(collection: Collection, results: list[Result], group: Sequence[Submission]) -> list[Result]:
    pairs = zip(results, group, strict=False)
    work = [(result, each) for result, each in pairs if isinstance(result, Accepted) and not is_live(result.document)]
    try:
        dead = write_through.run(work, collection=collection)
    except Problem as problem:  # the collection was deleted meanwhile
        return [result if isinstance(result, Problem) or is_live(result.document) else problem for result in results]
    refused = {
        accepted.document.id: write_through.refusal(job, pointer="/text")
        for (accepted, _), job in zip(work, dead, strict=True)
        if job is not None
    }
    return [result if isinstance(result, Problem) else refused.get(result.document.id, result) for result in results]
