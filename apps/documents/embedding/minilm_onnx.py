"""BERT-style sentence encoders: safetensors -> one ONNX file of ONNX Runtime's fused operators.

Needs numpy, safetensors and onnx, no torch and no model hub. The graph is
    ids, mask int32 [batch, tokens] -> vectors float32 [batch, hidden], unit L2 norm
with mean pooling over the mask inside. Operators: github.com/microsoft/onnxruntime, docs/ContribOperators.md.
The architecture is BERT (Devlin et al., 2018, arXiv:1810.04805), post-layer-norm, exact GELU.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .base import EmbeddingError

# Part of the cached file's name: raise it with every change to the graph.
CONVERTER_VERSION = 1
_CRC_DIGITS = 8


@dataclass(frozen=True)
class Encoder:
    """Sizes of one encoder, from the Hugging Face layout's JSON files."""

    hidden: int
    layers: int
    heads: int
    epsilon: float
    max_tokens: int  # special tokens included

    @classmethod
    def read(cls, directory: Path) -> Encoder:
        """Read config.json, sentence_bert_config.json and 1_Pooling/config.json (the last two optional).

        Raises EmbeddingError `unsupported_model` for anything that is not BERT with mean pooling.
        """
        try:
            config = json.loads((directory / "config.json").read_bytes())
            sentence = _optional_json(directory / "sentence_bert_config.json")
            pooling = _optional_json(directory / "1_Pooling" / "config.json")
        except (OSError, ValueError) as error:
            raise _unsupported(f"its configuration cannot be read ({type(error).__name__})") from error
        for key, wanted in (
            ("model_type", "bert"),
            ("hidden_act", "gelu"),
            ("position_embedding_type", "absolute"),
        ):
            if config.get(key, wanted) != wanted:
                raise _unsupported(f"{key} is {config[key]!r}, not {wanted!r}")
        if not pooling.get("pooling_mode_mean_tokens", True):
            raise _unsupported("it does not pool by the mean")
        positions = int(config["max_position_embeddings"])
        return cls(
            hidden=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            epsilon=float(config["layer_norm_eps"]),
            max_tokens=min(positions, int(sentence.get("max_seq_length", positions))),
        )


def cached_onnx(weights: Path, encoder: Encoder, *, digest: str, cache_dir: Path, half: bool = False) -> Path:
    """Return the ONNX file for `weights`, converting them if the cache lacks a sound copy.

    1. The name holds the weights' sha256 (`digest`, hex), CONVERTER_VERSION and the precision: never stale.
    2. The file ends with a CRC-32 of what precedes it: a torn or rotten copy is rebuilt.
    3. It is written under a private name and renamed: of racing processes each wins or is replaced by
       identical bytes, and none reads half a file.

    Raises EmbeddingError `weights_mismatch`, `cache_unwritable` or `unsupported_model`.
    """
    target = cache_dir / f"encoder-{digest[:16]}-v{CONVERTER_VERSION}{'-fp16' if half else ''}.onnx"
    if _is_sound(target):
        return target
    if file_sha256(weights) != digest:
        raise EmbeddingError(
            "weights_mismatch",
            f"{weights} is not the file it should be: its sha256 differs.",
            retryable=False,
        )
    model = convert(weights, encoder, half=half)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=target.stem, suffix=".tmp", dir=cache_dir)
        try:
            with os.fdopen(descriptor, "wb") as file:
                body = memoryview(model)[:-_CRC_DIGITS]
                file.write(body)
                file.write(_crc(body))
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise EmbeddingError(
            "cache_unwritable",
            f"The converted model cannot be written to EMBEDDING_CACHE_DIR {cache_dir}: {error.strerror}",
            retryable=False,
        ) from error
    return target


def convert(weights: Path, encoder: Encoder, *, half: bool = False) -> bytes:
    """Return a serialised ONNX model from fp32 or fp16 safetensors; its last 8 bytes are room for a CRC.

    half: all layers in fp16, for a GPU; pooling and the result stay fp32. Otherwise fp16 weights are widened: CPUs
    compute in fp32 anyway. Raises EmbeddingError `unsupported_model`.
    """
    # Imported here: onnx costs 0.5 s and is needed once per installation.
    import onnx
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = {re.sub(r"^bert\.", "", name): array for name, array in load_file(weights).items()}
        graph = _Graph(np.float16 if half else np.float32)
        _encoder_graph(graph, tensors, encoder)
    except (OSError, SafetensorError) as error:
        raise _unsupported(f"its weights cannot be read ({type(error).__name__})") from error
    except KeyError as error:
        raise _unsupported(f"tensor {error} is missing") from error

    helper, types = onnx.helper, onnx.TensorProto
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op, ins, outs, domain=domain, **kw) for op, ins, outs, domain, kw in graph.nodes],
            "sentence-encoder",
            [helper.make_tensor_value_info(name, types.INT32, ["batch", "tokens"]) for name in ("ids", "mask")],
            [helper.make_tensor_value_info("vectors", types.FLOAT, ["batch", encoder.hidden])],
            [onnx.numpy_helper.from_array(array, name) for name, array in graph.weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=8,
    )
    # metadata_props is the last field in use, so the placeholder's digits are the last bytes of the file.
    placeholder = "0" * _CRC_DIGITS
    helper.set_model_props(model, {"crc32": placeholder})
    data = model.SerializeToString()
    if not data.endswith(placeholder.encode()):
        raise AssertionError("onnx no longer serialises metadata_props last")
    return data


class _Graph:
    """Collects nodes and weights; each method returns the name of the tensor it made."""

    def __init__(self, precision: type[np.floating]) -> None:
        self.precision = precision
        self.nodes: list[tuple[str, list[str], list[str], str, dict[str, Any]]] = []
        self.weights: dict[str, np.ndarray] = {}

    def weight(self, name: str, array: np.ndarray) -> str:
        dtype = np.int64 if array.dtype == np.int64 else self.precision
        self.weights[name] = np.ascontiguousarray(array, dtype=dtype)
        return name

    def op(self, kind: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        self.nodes.append((kind, inputs, [output], domain, attributes))
        return output

    def fused(self, kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        self.nodes.append((kind, inputs, list(outputs), "com.microsoft", attributes))
        return outputs[0]


def _encoder_graph(graph: _Graph, tensors: dict[str, np.ndarray], encoder: Encoder) -> None:
    def linear(inputs: str, name: str, output: str) -> str:
        """Multiply by a torch Linear's weight [out, in]; its bias goes into the next fused operator."""
        kernel = graph.weight(f"{name}.weight", tensors[f"{name}.weight"].T)
        return graph.op("MatMul", [inputs, kernel], output)

    def vector(name: str) -> str:
        return graph.weight(name, tensors[name])

    def add_and_norm(inputs: str, skip: str, prefix: str, output: str) -> str:
        norm = [vector(f"{prefix}.LayerNorm.weight"), vector(f"{prefix}.LayerNorm.bias")]
        operands = [inputs, skip, *norm, vector(f"{prefix}.dense.bias")]
        return graph.fused("SkipLayerNormalization", operands, output, epsilon=encoder.epsilon)

    words = vector("embeddings.word_embeddings.weight")
    # One sentence per row: the segment is always 0, so its embedding is folded into the positions.
    positions = tensors["embeddings.position_embeddings.weight"][: encoder.max_tokens].astype(np.float32)
    positions = positions + tensors["embeddings.token_type_embeddings.weight"][0].astype(np.float32)
    norm = [vector("embeddings.LayerNorm.weight"), vector("embeddings.LayerNorm.bias")]
    state = graph.fused(
        "EmbedLayerNormalization",
        ["ids", "", words, graph.weight("positions", positions), "", *norm, "mask"],
        "embedded",
        "row_lengths",
        epsilon=encoder.epsilon,
    )
    for index in range(encoder.layers):
        layer, tag = f"encoder.layer.{index}", f"layer{index}"
        projections = [f"{layer}.attention.self.{which}" for which in ("query", "key", "value")]
        kernel = np.concatenate([tensors[f"{name}.weight"].T for name in projections], axis=1)
        bias = np.concatenate([tensors[f"{name}.bias"] for name in projections])
        attended = graph.fused(
            "Attention",
            [state, graph.weight(f"{tag}.qkv", kernel), graph.weight(f"{tag}.qkv_bias", bias), "row_lengths"],
            f"{tag}.attended",
            num_heads=encoder.heads,
        )
        mixed = linear(attended, f"{layer}.attention.output.dense", f"{tag}.mixed")
        state = add_and_norm(mixed, state, f"{layer}.attention.output", f"{tag}.attention_out")
        wide = linear(state, f"{layer}.intermediate.dense", f"{tag}.wide")
        active = graph.fused("BiasGelu", [wide, vector(f"{layer}.intermediate.dense.bias")], f"{tag}.active")
        narrow = linear(active, f"{layer}.output.dense", f"{tag}.narrow")
        state = add_and_norm(narrow, state, f"{layer}.output", f"{tag}.out")
    _mean_pool(graph, state)


def _mean_pool(graph: _Graph, state: str) -> None:
    """Sum over the mask by a matrix product; the mean's divisor vanishes in the normalisation."""
    axis = graph.weight("axis1", np.array([1], dtype=np.int64))
    mask = graph.op("Unsqueeze", [graph.op("Cast", ["mask"], "mask_float", to=1), axis], "mask_row")
    if graph.precision is np.float16:
        state = graph.op("Cast", [state], "state_float", to=1)  # a sum of 256 rows wants more than eleven bits
    pooled = graph.op("Squeeze", [graph.op("MatMul", [mask, state], "pooled_row"), axis], "pooled")
    norm = graph.op("ReduceL2", [pooled], "norm", axes=[1], keepdims=1)
    graph.op("Div", [pooled, norm], "vectors")


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file (0.4 s for 90 MB without SHA instructions)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_sound(path: Path) -> bool:
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
            view[:-_CRC_DIGITS] as body,
        ):
            return data[-_CRC_DIGITS:] == _crc(body)
    except (OSError, ValueError):  # ValueError: an empty file cannot be mapped
        return False


def _crc(body: memoryview) -> bytes:
    return f"{zlib.crc32(body):0{_CRC_DIGITS}x}".encode()


def _optional_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path.exists() else {}


def _unsupported(why: str) -> EmbeddingError:
    return EmbeddingError("unsupported_model", f"The model cannot be converted: {why}.", retryable=False)
