"""Turning text into vectors: one module per backend behind the seam in `base`.

    get_embedder("local", cache_dir=settings.EMBEDDING_CACHE_DIR).embed(["text"])  # float32 [1, 384]

No Django here: callers pass their settings, so scripts and benchmarks use the same door.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from .base import Embedder, EmbeddingError, Vectors, token_batches

__all__ = ["BACKENDS", "Embedder", "EmbeddingError", "Vectors", "get_embedder", "token_batches"]

BACKENDS = ("local", "openai", "fake")
DEFAULT_MODEL = "all-MiniLM-L6-v2"

_embedders: dict[tuple[object, ...], Embedder] = {}
_lock = threading.Lock()


def get_embedder(
    backend: str,
    *,
    model: str = DEFAULT_MODEL,
    dimensions: int | None = None,
    url: str | None = None,
    api_key: str | None = None,
    cache_dir: Path | None = None,
    model_dir: Path | None = None,
    threads: int = 0,
) -> Embedder:
    """Return the process's embedder for these settings, loading it on the first call.

    backend `local`: `cache_dir` holds the converted model (default: the user's cache directory),
    `model_dir` overrides the packaged weights, `threads` 0 means all cores, fewer `dimensions` than the model's cut
    its vectors. backend `openai`: needs `url`
    and `dimensions`; a tokenizer.json in `model_dir` makes its token counts exact. backend `fake`:
    `dimensions` (default 384).

    Raises ValueError that names the variable at fault, EmbeddingError when loading fails.
    """
    # A forked child must not touch its parent's sessions and sockets, nor free them: the threads they
    # would join do not exist in it. The pid in the key leaves them alone.
    key = (os.getpid(), backend, model, dimensions, url, api_key, cache_dir, model_dir, threads)
    with _lock:
        if key not in _embedders:
            _embedders[key] = _make(backend, model, dimensions, url, api_key, cache_dir, model_dir, threads=threads)
        return _embedders[key]


def _make(
    backend: str,
    model: str,
    dimensions: int | None,
    url: str | None,
    api_key: str | None,
    cache_dir: Path | None,
    model_dir: Path | None,
    *,
    threads: int,
) -> Embedder:
    # Backends are imported when chosen: each brings libraries the others do not need.
    if backend == "fake":
        from .fake import FakeEmbedder

        return FakeEmbedder(dimensions=dimensions or 384)
    if backend == "local":
        from .local import LocalEmbedder

        local = LocalEmbedder(model=model, cache_dir=cache_dir or _user_cache(), model_dir=model_dir, threads=threads)
        if dimensions in (None, local.dimensions):
            return local
        from .truncated import TruncatedEmbedder

        return TruncatedEmbedder(local, dimensions)
    if backend == "openai":
        from .openai_compatible import OpenAICompatibleEmbedder

        if not url:
            raise ValueError("EMBEDDING_BACKEND=openai needs EMBEDDING_URL")
        if not dimensions:
            raise ValueError("EMBEDDING_BACKEND=openai needs EMBEDDING_DIMENSIONS")
        return OpenAICompatibleEmbedder(
            url=url,
            model=model,
            dimensions=dimensions,
            api_key=api_key or "",
            tokenizer_file=model_dir / "tokenizer.json" if model_dir else None,
        )
    raise ValueError(f"EMBEDDING_BACKEND must be one of {', '.join(BACKENDS)}, not {backend!r}")


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ragsite"


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    # Another thread of the parent may hold the lock at the moment of the fork.
    os.register_at_fork(after_in_child=_renew_lock)
