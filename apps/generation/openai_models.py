"""What `/v1/models` lists, and what a model's name stands for."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync

from apps.access import tenancy
from apps.access.problems import invalid
from apps.documents.models import Collection, EmbeddingSpace

from .llm import LLMError, configured

PREFIX = "ragsite/"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Whom a chat asks: collections (None: all of the tenant's) and, for a raw model, its name; else auto."""

    collections: tuple[str, ...] | None
    model: str = "auto"


def listed(*, tenant_id: UUID) -> list[dict[str, Any]]:
    """One model per collection, the raw language model where it can be told, the embedding models."""
    with tenancy.scope(tenant_id):
        collections = list(Collection.objects.order_by("slug").values_list("slug", "created_at"))
        spaces = list(EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.LIVE).order_by("created_at"))
    models = [_model(PREFIX + slug, int(created.timestamp()), "ragsite") for slug, created in collections]
    names = dict.fromkeys(raw_models(), 0)
    names |= {space.model: int(space.created_at.timestamp()) for space in spaces if space.model not in names}
    return models + [_model(name, created, "system") for name, created in names.items()]


def raw_models() -> list[str]:
    """The language models' own names; without those whose server does not tell."""
    names = []
    for model in configured():
        with suppress(LLMError):
            names.append(async_to_sync(model.model)())
    return names


def choose(*, tenant_id: UUID, model: str | None, collections: list[str] | None) -> Chosen:
    """What a chat request asks for. `collections` overrides the collection that the model names.

    Raises Problem 404 `model_not_found`, and 400 `model_required` when the model is omitted and the tenant
    has not exactly one collection.
    """
    with tenancy.scope(tenant_id):
        slugs = list(Collection.objects.order_by("slug").values_list("slug", flat=True))
    wanted = tuple(collections) if collections else None
    if not model:
        if wanted:
            return Chosen(wanted)
        if len(slugs) != 1:
            count = "no collection" if not slugs else f"{len(slugs)} collections"
            raise invalid("/model", f"Name a model: this key sees {count}.", code="model_required")
        return Chosen((slugs[0],))
    slug = model.removeprefix(PREFIX)
    if model.startswith(PREFIX) and slug in slugs:
        return Chosen(wanted or (slug,))
    if not model.startswith(PREFIX) and model in raw_models():
        return Chosen(wanted, model)
    raise invalid("/model", f"The model {model!r} does not exist.", status=404, code="model_not_found")


def embedding_space(model: str, *, dimensions: int | None) -> EmbeddingSpace:
    """The oldest live space whose model has this name, and as many dimensions where that is given.

    Raises Problem 404 `model_not_found`, and 400 for dimensions in which the model does not embed here.
    """
    found = list(EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.LIVE, model=model).order_by("created_at"))
    if not found:
        raise invalid("/model", f"The model {model!r} does not exist.", status=404, code="model_not_found")
    sizes = [space.dimensions for space in found]
    if dimensions is not None and dimensions not in sizes:
        raise invalid("/dimensions", f"This model has {' or '.join(map(str, sorted(set(sizes))))} dimensions.")
    return found[0 if dimensions is None else sizes.index(dimensions)]


def _model(name: str, created: int, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": owner}
