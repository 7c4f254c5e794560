"""`/api/v1/jobs`: the ledger, read, retried and cancelled."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.problems import Problem, invalid
from apps.access.views import PAGED, TenantView

from .. import collections, ledger, queries
from ..models import IngestionJob
from ..serializers import JobSerializer, RetriedSerializer, RetrySerializer


class JobList(TenantView):
    query_names = {"GET": ("state", *PAGED)}

    @extend_schema(
        parameters=[OpenApiParameter("state", enum=IngestionJob.State.values)],
        responses=JobSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """List the jobs, newest first."""
        jobs = IngestionJob.objects.all()
        state = request.query_params.get("state")
        if state is not None:
            if state not in IngestionJob.State.values:
                raise invalid("/state", f"state is one of {', '.join(IngestionJob.State.values)}.")
            jobs = jobs.filter(state=state)
        return self.paged(jobs, lambda job: JobSerializer(job).data)


class JobsRetry(TenantView):
    @extend_schema(
        request=RetrySerializer,
        responses=RetriedSerializer,
        examples=[OpenApiExample("what was too large once", {"code": "too_large"}, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        """Try dead jobs again: up to 1,000, the oldest first.

        Those of a collection, those with an error's code, or all; `left` says how many there are still.
        """
        values = self.validated(RetrySerializer)
        collection_id = None
        if "collection" in values:
            with self.scope():
                collection_id = collections.find(values["collection"], writing=True).id
        retried, left = ledger.retry_dead(
            tenant_id=self.caller.tenant_id, collection_id=collection_id, code=values.get("code")
        )
        return Response({"retried": retried, "left": left})


class JobDetail(TenantView):
    @extend_schema(responses=JobSerializer)
    def get(self, request: Request, job_id: UUID) -> Response:
        """Get a job."""
        with self.scope():
            return Response(JobSerializer(queries.job(job_id)).data)


class JobRetry(TenantView):
    @extend_schema(request=None, responses=JobSerializer)
    def post(self, request: Request, job_id: UUID) -> Response:
        """Try a dead or cancelled job again."""
        return _act(self, job_id, ledger.retry)


class JobCancel(TenantView):
    @extend_schema(request=None, responses=JobSerializer)
    def post(self, request: Request, job_id: UUID) -> Response:
        """End a job that has not ended; its document stays as it was."""
        return _act(self, job_id, ledger.cancel)


def _act(view: TenantView, job_id: UUID, verb: Callable[..., bool]) -> Response:
    """The job after the verb. Raises Problem 404, and 409 when its state does not allow it."""
    with view.scope():
        queries.job(job_id)
        done = verb(job_id=job_id)
        job = queries.job(job_id)
        if not done:
            raise Problem(409, "wrong_state", f"The job is {job.state}.")
        return Response(JobSerializer(job).data)
