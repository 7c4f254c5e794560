from django.apps import AppConfig
from django.db.models.signals import post_migrate


class AccessConfig(AppConfig):
    name = "apps.access"
    verbose_name = "Access"

    def ready(self) -> None:
        from . import checks, roles  # noqa: F401  registers the system checks

        post_migrate.connect(roles.grant_after_migrate, dispatch_uid="access.grant")
