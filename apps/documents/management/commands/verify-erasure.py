"""`manage.py verify-erasure ID`: proof, table by table, that nothing of an erased document is left."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.access import tenancy
from apps.documents import erasure
from apps.documents.models import Document

ELSEWHERE = """\
What this command cannot see:
- The files of PostgreSQL hold removed rows until VACUUM has passed over their pages (autovacuum does; VACUUM at once).
- Its write-ahead log holds what was written until the segments are recycled; an archive of them, until it expires.
- Backups and replicas made before the erasure hold the document until they expire or are replaced.
- Redis holds no content, only vectors of questions, for an hour at most. Logs name documents by their ids."""


class Command(BaseCommand):
    help = "Prove that nothing of an erased document is left in the database, and say what may be left elsewhere."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", type=UUID, help="the document's id")
        parser.add_argument("--tenant", default=tenancy.DEFAULT_TENANT, metavar="SLUG")

    def handle(self, *args: Any, **options: Any) -> None:
        document_id = options["id"]
        with tenancy.scope(tenancy.tenant_id_for(options["tenant"]), repeatable_read=True):
            document = Document.objects.filter(id=document_id).first()
            found = erasure.traces(document_id)
        if document is None:
            raise CommandError(f"the tenant {options['tenant']!r} has no document {document_id}, not even a tombstone")
        for table, rows in found.items():
            self.stdout.write(f"{table:32} {rows}")
        content = document.title or document.metadata or document.error or bytes(document.content_sha256)
        self.stdout.write(f"{'documents_document (tombstone)':32} {'holds content' if content else 'no content'}")
        if document.erased_at is None or content or any(found.values()):
            raise CommandError("the document is not erased" if document.erased_at is None else "something is left")
        self.stdout.write(f"erased at {document.erased_at.isoformat()}, version {document.version}\n\n{ELSEWHERE}")
