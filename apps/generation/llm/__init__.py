"""Who writes the answer: one module per backend behind the seam in `base`."""

from __future__ import annotations

import hashlib
import threading
from functools import cache

from asgiref.sync import async_to_sync
from django.conf import settings

from .allowance import Allowance
from .base import LLM, LLMError
from .breaker import Breaker
from .extractive import ExtractiveLLM
from .fake import FakeLLM
from .metered import Metered, prompt_tokens
from .openai_compatible import OpenAICompatibleLLM, Patience
from .upstream import Upstream

__all__ = [
    "LLM",
    "ExtractiveLLM",
    "FakeLLM",
    "LLMError",
    "Metered",
    "OpenAICompatibleLLM",
    "Patience",
    "Upstream",
    "configured",
    "prompt_tokens",
    "standing",
]


_lock = threading.Lock()


def configured() -> tuple[LLM, ...]:
    """The process's language models, from the LLM_* settings: the fast one, and the large one where there are two."""
    with _lock:  # a second set would have places of its own
        return made()


@cache
def made() -> tuple[LLM, ...]:
    if settings.LLM_BACKEND == "openai":
        fast = _upstream(settings.LLM_URL, settings.LLM_MODEL, settings.LLM_API_KEY)
        if not settings.LLM_LARGE_URL:
            return (fast,)
        return fast, _upstream(settings.LLM_LARGE_URL, settings.LLM_LARGE_MODEL, settings.LLM_LARGE_API_KEY)
    return (FakeLLM(),) if settings.LLM_BACKEND == "fake" else (ExtractiveLLM(),)


def standing() -> dict[str, str]:
    """Of each server of a language model (`llm`, `llm_large`): `ok`, or what is wrong with it now."""
    found = {}
    for name, llm in zip(("llm", "llm_large"), configured(), strict=False):
        if isinstance(llm, Upstream):
            try:
                async_to_sync(llm.check)()
                found[name] = "ok"
            except LLMError as error:
                found[name] = f"{error.code}: {error}"
    return found


def _upstream(url: str, model: str, api_key: str) -> Upstream:
    patience = Patience(
        connect=settings.LLM_CONNECT_SECONDS,
        first=settings.LLM_FIRST_TOKEN_SECONDS,
        next=settings.LLM_NEXT_TOKEN_SECONDS,
        total=settings.LLM_TIMEOUT_SECONDS,
    )
    llm = OpenAICompatibleLLM(url=url, model=model, api_key=api_key, patience=patience)
    name = hashlib.sha256(f"{url} {model}".encode()).hexdigest()[:16]  # a URL may hold a password
    asked, written = settings.LLM_REQUESTS_PER_MINUTE, settings.LLM_TOKENS_PER_MINUTE
    return Upstream(
        llm,
        Breaker(name),
        places=settings.LLM_MAX_CONCURRENT,
        first_seconds=patience.first,
        allowance=Allowance(name, requests=asked, tokens=written) if asked or written else None,
    )
