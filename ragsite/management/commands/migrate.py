"""Django's `migrate`, run as the owner of the tables; the application's own role cannot make any."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.core.management.commands.migrate import Command as MigrateCommand
from django.db import connections

from apps.access.roles import ensure_app_role, notice_who_has_left

LOCK = 0x72616773697465  # any number that nobody else takes


class Command(MigrateCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.set_defaults(database="owner")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["database"] != "owner":
            super().handle(*args, **options)
            return
        # Several machines may be started at once, each with a `migrate` first: one does it, the others wait and find
        # it done. The lock ends with the session, however that ends.
        with connections["owner"].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            try:
                ensure_app_role()
                notice_who_has_left()
                super().handle(*args, **options)
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
