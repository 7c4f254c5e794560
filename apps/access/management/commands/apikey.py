"""`manage.py apikey create`: the key alone on stdout, for scripts."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from apps.access import keys, tenancy


class Command(BaseCommand):
    help = "Create an API key and print it, alone, on stdout. It is shown this once."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a key; its tenant too, if new")
        create.add_argument("--name", required=True)
        create.add_argument("--scopes", default="read", help="comma-separated: read,write,admin")
        create.add_argument("--tenant", default=tenancy.DEFAULT_TENANT, metavar="SLUG")
        create.add_argument("--requests-per-minute", type=int, metavar="N")
        create.add_argument("--tokens-per-minute", type=int, metavar="N", help="that models read and write for it")

    def handle(self, *args: Any, **options: Any) -> None:
        scopes = [word.strip() for word in options["scopes"].split(",") if word.strip()]
        try:
            with transaction.atomic():  # no tenant without its key
                tenant = keys.ensure_tenant(slug=options["tenant"])
                _, secret = keys.create_key(
                    tenant_id=tenant.id,
                    name=options["name"],
                    scopes=scopes,
                    requests_per_minute=options["requests_per_minute"],
                    tokens_per_minute=options["tokens_per_minute"],
                )
        except ValidationError as error:
            raise CommandError("; ".join(_said(error)))
        self.stdout.write(secret)


def _said(error: ValidationError) -> list[str]:
    """Each complaint, with the name of its field where it is one's."""
    if not hasattr(error, "error_dict"):
        return error.messages
    return [f"{name}: {' '.join(told)}" for name, told in error.message_dict.items()]
