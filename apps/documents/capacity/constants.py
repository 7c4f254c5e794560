"""What things take, and where that was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .wishes import BadWish

EXAMPLE = (100_000, 384)  # entries of a graph, and their dimensions


class Constant(float):
    """A number with its unit, and where it comes from: what was measured, and how well the fit holds."""

    unit: str
    source: str

    def __new__(cls, value: float, unit: str, source: str) -> Constant:
        made = super().__new__(cls, value)
        made.unit, made.source = unit, source
        return made


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Bytes are of disk; milliseconds are of one processor (hyper-thread). Units and sources: constants.json."""

    text: Constant  # bytes of a token
    document: Constant  # its row and the row's indexes
    version: Constant  # one of a document, without text and chunks
    version_chunk: Constant  # where a chunk is in its version
    stored_text: Constant  # of a version, for each byte of it
    original: Constant  # one, without its bytes
    stored_original: Constant  # for each byte of it
    chunk: Constant  # its row, without text
    chunk_text: Constant  # text and lexemes, for each byte of text
    chunk_keys: Constant  # its indexes but that of words
    word_index: Constant  # for each byte of text, where there are measured_chunks
    word_index_power: Constant  # of the chunks there are beside these: that many times as much
    vector_keys: Constant  # of a vector's row
    job: Constant  # a line of the ledger

    graph_memory: Constant  # of an entry while a graph is built, without its vector
    graph_build: Constant  # ms of an entry of a graph of EXAMPLE
    graph_build_power: Constant  # of its size over that of EXAMPLE: so many times as long
    graph_build_dimensions: Constant  # the same of its dimensions
    bits_build: Constant  # a graph of bits: times as long
    lists_build: Constant  # ms of a row of IVFFlat
    lists_build_list: Constant  # the same, for each list
    words_build: Constant  # ms of a chunk, for each byte of its text

    dense: Constant  # ms of a search of EXAMPLE
    dense_power: Constant  # of its size over that of EXAMPLE: so many times as long
    dense_dimensions: Constant  # the same of its dimensions
    bits_search: Constant  # a graph of bits: times as long
    lists_search: Constant  # ms of a search through IVFFlat
    lists_search_byte: Constant  # for each byte that is compared
    words: Constant  # ms of a hybrid search beyond a dense one
    words_chunk: Constant  # for each chunk
    fan_out: Constant  # n graphs in place of one: n to this power times the work of dense
    breadth_power: Constant  # so many times as far searched: to this power times the work
    words_fan_out: Constant  # as fan_out, of words, without words_chunk
    measured_chunks: Constant  # to which times were measured

    web: Constant  # ms of the web process for a search
    query_vector: Constant  # ms of the model for a question
    model_token: Constant  # ms of the model for a token of a document
    gpu_chunks: Constant  # per second of one GPU
    load_chunk: Constant  # ms of the database for a chunk of a first load
    insert: Constant  # an entry that comes to a graph: times as long as one of its build
    publish_chunk: Constant  # ms of the database for a chunk that workers publish, without the graph's entry
    publish_document: Constant
    work_document: Constant  # ms of the workers' own for a document
    work_token: Constant  # for each token of it
    process_memory: Constant  # of a web or embedding process with the model in it

    @classmethod
    def load(cls, path: Path | None = None) -> Constants:
        """Those of a file such as the benchmark writes; the product's own where none is named.

        Raises BadWish for a file that is not one.
        """
        path = path or Path(__file__).with_name("constants.json")
        try:
            read: dict[str, dict[str, Any]] = json.loads(path.read_text())
            found = {name: Constant(each["value"], each["unit"], each["source"]) for name, each in read.items()}
            return cls(**found)
        except OSError as error:
            raise BadWish(f"{path} cannot be read: {error.strerror}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadWish(f"{path} does not hold the constants that the benchmark writes: {error}")

    def dump(self) -> str:
        each = {name: {"value": float(value), "unit": value.unit, "source": value.source} for name, value in self}
        return json.dumps(each, indent=2, ensure_ascii=False) + "\n"

    def __iter__(self) -> Iterator[tuple[str, Constant]]:
        """(name, constant), in order."""
        return ((each.name, getattr(self, each.name)) for each in fields(self))
