"""`manage.py verify-erasure ID`: proof, table by table, that nothing of an erased document is left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from apps.access import tenancy
from apps.documents import erasure
from apps.documents.engines import engine_for
from apps.documents.models import Document

ELSEWHERE = """\
What this command cannot see:
- The files of PostgreSQL hold removed rows until VACUUM has passed over their pages: {vacuum}.
- Its write-ahead log holds what was written until its segments are overwritten, after at most {max_wal_size} more of
  it (max_wal_size); {archive}.
- Backups and replicas made before the erasure hold the document until they expire or are replaced.
- Redis holds vectors of questions, for an hour at most, and what was told of queries that were being answered during
  the erasure, for ten minutes. Logs name documents by their ids."""
UNVACUUMED = """
SELECT count(*) FROM pg_stat_user_tables t
WHERE (GREATEST(t.last_vacuum, t.last_autovacuum) > %(erased)s) IS NOT TRUE
  AND EXISTS (SELECT 1 FROM unnest(%(tables)s::text[]) k WHERE t.relname = k OR t.relname ~ ('^' || k || '_p[0-9]+$'))
"""


def elsewhere(tables: Sequence[str], erased_at: datetime) -> str:
    """What may be left outside of the tables, and until when, as far as this server tells."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('max_wal_size'), current_setting('archive_mode') <> 'off'")
        max_wal_size, archived = cursor.fetchone()
        cursor.execute(UNVACUUMED, {"erased": erased_at, "tables": list(tables)})
        waiting = cursor.fetchone()[0]
    if engine_for(connection).name == "postgres":
        vacuum = f"{waiting} of these tables and partitions have not been vacuumed since"
    else:
        vacuum = "autovacuum does in its time, on every node"  # whose statistics are not seen here
    archive = "its archive, until that expires" if archived else "archive_mode is off, nothing keeps them longer"
    return ELSEWHERE.format(vacuum=vacuum, max_wal_size=max_wal_size, archive=archive)


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
        self.stdout.write(f"erased at {document.erased_at.isoformat()}, version {document.version}\n")
        self.stdout.write(elsewhere(["documents_document", *found], document.erased_at))
