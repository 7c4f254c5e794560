"""Django's `changepassword`, behind the wall: the curator is looked up and saved in its own tenant."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.management.commands.changepassword import Command as DjangoCommand

from apps.access import tenancy


class Command(DjangoCommand):
    def handle(self, *args: Any, **options: Any) -> Any:
        tenant_id = tenancy.tenant_of_user(username=options["username"])
        if tenant_id is None:
            return super().handle(*args, **options)  # which says that there is no such user
        with tenancy.scope(tenant_id):
            return super().handle(*args, **options)
