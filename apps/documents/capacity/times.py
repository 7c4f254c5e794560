"""Milliseconds of a processor: what searches, builds and writes take."""

from __future__ import annotations

from .constants import EXAMPLE, Constants
from .sizes import DEAD
from .wishes import Wishes

#: Among more chunks graphs are searched further, by the root, and so many times as far at most: retrieval/policy.py,
#: which may not be imported here; a test keeps both the same.
LARGE, MOST_FURTHER = 400_000, 2


def build_ms(wishes: Wishes, constants: Constants, entries: float) -> float:
    """To build one vector index of so many entries, in memory."""
    if wishes.index == "ivfflat":
        return entries * (constants.lists_build + constants.lists_build_list * _lists(entries))
    each = constants.graph_build * _beside_example(
        entries, constants.graph_build_power, wishes.dimensions, constants.graph_build_dimensions
    )
    return entries * each * (constants.bits_build if wishes.index == "bits" else 1)


def dense_ms(wishes: Wishes, constants: Constants, graphs: int = 1) -> float:
    """A search by vectors, in all of the graphs together."""
    if wishes.index == "ivfflat":
        each = wishes.chunks / graphs
        lists = _lists(each)
        compared = each / lists * min(lists, max(1, 2 * lists**0.5))  # retrieval/policy.py: twice the root of the lists
        return graphs * (constants.lists_search + constants.lists_search_byte * compared * wishes.vector_bytes)
    one = constants.dense * _beside_example(
        wishes.chunks, constants.dense_power, wishes.dimensions, constants.dense_dimensions
    )
    one *= min(MOST_FURTHER, max(1.0, wishes.chunks / LARGE) ** 0.5) ** constants.breadth_power
    return float(graphs**constants.fan_out) * one * (constants.bits_search if wishes.index == "bits" else 1)


def words_ms(wishes: Wishes, constants: Constants, graphs: int = 1) -> float:
    """What a hybrid search takes beyond a dense one: in each partition or shard, and by the lists of its words."""
    return float(graphs**constants.words_fan_out) * constants.words + constants.words_chunk * wishes.chunks


def publish_chunk_ms(wishes: Wishes, constants: Constants, graphs: int) -> float:
    """A chunk that comes while all indexes are there. (IVFFlat's entry is taken for none.)"""
    if wishes.index == "ivfflat":
        return constants.publish_chunk
    entries = wishes.chunks / graphs
    return constants.publish_chunk + constants.insert * build_ms(wishes, constants, entries) / entries


def _beside_example(entries: float, power: float, dimensions: int, dimensions_power: float) -> float:
    return float((entries / EXAMPLE[0]) ** power * (dimensions / EXAMPLE[1]) ** dimensions_power)


def _lists(entries: float) -> float:
    """As vector_index.lists_for does."""
    return max(1.0, entries / 1_000 if entries <= 1e6 else entries**0.5)


def database_cores(wishes: Wishes, constants: Constants, graphs: int) -> float:
    """For searches, what is published and vector indexes that are built anew; those that are to stay idle too."""
    search = dense_ms(wishes, constants, graphs) + wishes.hybrid * words_ms(wishes, constants, graphs)
    publish = wishes.documents_per_day * constants.publish_document
    publish += wishes.new_chunks_per_day * publish_chunk_ms(wishes, constants, graphs)
    rebuilds = wishes.replaced_per_day / (DEAD * wishes.chunks)  # a day
    rebuild = rebuilds * graphs * build_ms(wishes, constants, wishes.chunks / graphs)
    return (wishes.searches_per_second * search + (publish + rebuild) / 86400) / 1000 / wishes.busy
