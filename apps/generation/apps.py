from functools import partial

from django.apps import AppConfig


class GenerationConfig(AppConfig):
    name = "apps.generation"
    verbose_name = "Generation"

    def ready(self) -> None:
        from apps.documents import erasure

        from . import records
        from .models import Feedback, LowAnswer

        for model in (LowAnswer, Feedback):
            count, forget = partial(records.count_hanging, model), partial(records.forget_hanging, model)
            erasure.register(erasure.Keeper(model._meta.db_table, count, forget))
        erasure.register(erasure.Keeper("generation_answer", records.count_made_from, records.forget_made_from))
        erasure.register(erasure.Keeper("generation_answersource", records.count_sources, records.forget_sources))
