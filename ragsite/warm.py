"""A process' first questions, asked by itself: they load models and clients, open a connection, plan statements."""

from __future__ import annotations

import logging
import threading
import time

from django.db import connection

from apps.access import tenancy
from apps.documents.models import Document, EmbeddingSpace
from apps.documents.spaces import embedder_for
from apps.generation import llm
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery

logger = logging.getLogger(__name__)

QUESTIONS = 3


def in_background() -> None:
    """Nobody waits for it: a process is ready before it is warm."""
    threading.Thread(target=warm_up, name="warm-up", daemon=True).start()


def warm_up() -> None:
    """Make the language models' clients, load the first live space's model, and search the default tenant's documents
    for some of their titles. Whatever fails here will tell who asks first."""
    started = time.monotonic()
    tenant_id = tenancy.tenant_id_for(tenancy.DEFAULT_TENANT)
    try:
        llm.configured()
        space = EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.LIVE).order_by("created_at").first()
        if space is not None:
            embedder_for(space).embed(["warm"])
        for title in _titles(tenant_id):
            for mode in ("dense", "lexical", "hybrid"):
                search(tenant_id=tenant_id, query=SearchQuery(title, mode=mode), reuse=False)
    except Exception as error:
        logger.info("not warmed up: %s", error)
    else:
        logger.info("warm after %.1f s", time.monotonic() - started)
    finally:
        connection.close()


def _titles(tenant_id: object) -> list[str]:
    with tenancy.scope(str(tenant_id)):
        live = Document.objects.filter(live_version__isnull=False).exclude(title="")
        return [title[:200] for title in live.values_list("title", flat=True)[:QUESTIONS]]
