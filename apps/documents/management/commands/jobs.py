"""`manage.py jobs list|retry`: the ledger of one tenant from the command line."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.access import tenancy
from apps.access.problems import Problem
from apps.documents import collections, ledger
from apps.documents.models import IngestionJob


class Command(BaseCommand):
    help = "List ingestion jobs, or give dead ones another try."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        listed = verbs.add_parser("list", help="the newest jobs, one per line")
        listed.add_argument("--state", choices=IngestionJob.State.values, help="only these")
        listed.add_argument("--limit", type=int, default=50, help="how many at most (default: %(default)s)")
        retry = verbs.add_parser("retry", help="try dead jobs again")
        retry.add_argument("--code", help="only those that died with this error, such as out_of_memory")
        for verb in (listed, retry):
            verb.add_argument("--collection", metavar="SLUG", help="only those of this collection")
            verb.add_argument("--tenant", default=tenancy.DEFAULT_TENANT, metavar="SLUG")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant_id = tenancy.tenant_id_for(options["tenant"])
        try:
            with tenancy.scope(tenant_id):
                slug = options["collection"]
                collection_id = collections.find(slug).id if slug else None
        except Problem as problem:
            raise CommandError(problem.detail)
        if options["verb"] == "retry":
            retried, left = ledger.retry_dead(tenant_id=tenant_id, collection_id=collection_id, code=options["code"])
            self.stdout.write(f"{retried} queued again" + (f", {left} left" if left else ""))
            return
        with tenancy.scope(tenant_id):
            jobs = IngestionJob.objects.order_by("-created_at")
            if options["state"]:
                jobs = jobs.filter(state=options["state"])
            if collection_id:
                jobs = jobs.filter(collection_id=collection_id)
            for job in jobs[: options["limit"]]:
                error = f"\t{job.error['code']}: {job.error['detail']}" if job.error else ""
                self.stdout.write(f"{job.id}\t{job.state}\t{job.stage}\t{job}\tattempts {job.attempts}{error}")
