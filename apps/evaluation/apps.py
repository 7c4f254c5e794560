from django.apps import AppConfig


class EvaluationConfig(AppConfig):
    name = "apps.evaluation"
    verbose_name = "Quality"

    def ready(self) -> None:
        from apps.documents import erasure

        from . import stored

        erasure.register(erasure.Keeper("evaluation_labelledquery", stored.count_about, stored.forget_about))
