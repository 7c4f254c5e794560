from functools import partial

from django.apps import AppConfig


class GenerationConfig(AppConfig):
    name = "apps.generation"
    verbose_name = "Generation"

    def ready(self) -> None:
        from apps.documents import erasure

        from . import queries, records
        from .models import Feedback, LowAnswer, Query

        for model in (LowAnswer, Feedback):
            count, forget = partial(records.count_hanging, model), partial(records.forget_hanging, model)
            erasure.register(erasure.Keeper(model._meta.db_table, count, forget))
        hanging = partial(records.count_hanging, Query)
        erasure.register(erasure.Keeper("generation_query", hanging, queries.forget_made_from))
        erasure.register(erasure.Keeper("generation_answer", records.count_made_from, records.forget_made_from))
        erasure.register(erasure.Keeper("generation_answersource", records.count_sources, records.forget_sources))
