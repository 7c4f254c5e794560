"""Who writes the answer: one module per backend behind the seam in `base`."""

from __future__ import annotations

from functools import cache

from django.conf import settings

from .base import LLM, LLMError
from .extractive import ExtractiveLLM
from .fake import FakeLLM
from .openai_compatible import OpenAICompatibleLLM

__all__ = ["LLM", "ExtractiveLLM", "FakeLLM", "LLMError", "OpenAICompatibleLLM", "configured"]


@cache
def configured() -> LLM:
    """The process's backend, from the LLM_* settings."""
    if settings.LLM_BACKEND == "openai":
        return OpenAICompatibleLLM(
            url=settings.LLM_URL,
            model=settings.LLM_MODEL,
            api_key=settings.LLM_API_KEY,
            timeout=settings.LLM_TIMEOUT_SECONDS,
        )
    return FakeLLM() if settings.LLM_BACKEND == "fake" else ExtractiveLLM()
