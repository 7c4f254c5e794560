from django.urls import path

from . import openai_views

urlpatterns = [
    path("models", openai_views.ModelList.as_view()),
    path("models/<path:name>", openai_views.ModelDetail.as_view()),
    path("chat/completions", openai_views.ChatCompletions.as_view()),
    path("embeddings", openai_views.Embeddings.as_view()),
]
