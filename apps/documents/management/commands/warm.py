"""`manage.py warm`: after a restart of PostgreSQL, a restored backup, an index build."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand

from apps.documents.prewarm import prewarm


class Command(BaseCommand):
    help = "Read the indexes and tables that searches read into PostgreSQL's memory."

    def handle(self, *args: Any, **options: Any) -> None:
        started = time.monotonic()
        warmed = prewarm()
        if warmed is None:
            told = "nothing was read: the extension pg_prewarm is not installed (CREATE EXTENSION pg_prewarm)"
        else:
            took = time.monotonic() - started
            told = f"{warmed.relations} indexes and tables, {warmed.bytes / 2**20:.0f} MiB, in {took:.1f} s"
            if warmed.left_out:
                told += f"; {warmed.left_out / 2**20:.0f} MiB more do not fit shared_buffers"
        if options["verbosity"]:
            self.stdout.write(told)
