from django.apps import AppConfig


class GenerationConfig(AppConfig):
    name = "apps.generation"
    verbose_name = "Generation"

    def ready(self) -> None:
        from apps.documents import erasure

        from . import feedback, records

        erasure.register(erasure.Keeper("generation_feedback", feedback.count_about, feedback.forget_about))
        erasure.register(erasure.Keeper("generation_answer", records.count_made_from, records.forget_made_from))
        erasure.register(erasure.Keeper("generation_answersource", records.count_sources, records.forget_sources))
