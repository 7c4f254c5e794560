from django.apps import AppConfig
from django.db.models.signals import post_migrate


class DocumentsConfig(AppConfig):
    name = "apps.documents"
    verbose_name = "Knowledge"

    def ready(self) -> None:
        from . import checks, metrics, spaces  # noqa: F401  checks registers itself

        metrics.register()
        post_migrate.connect(spaces.ensure_default_after_migrate, sender=self, dispatch_uid="documents.space")
