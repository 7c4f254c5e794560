"""Django's `migrate`, run as the owner of the tables; the application's own role cannot make any."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.core.management.commands.migrate import Command as MigrateCommand

from apps.access.roles import ensure_app_role


class Command(MigrateCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.set_defaults(database="owner")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["database"] == "owner":
            ensure_app_role()
        super().handle(*args, **options)
