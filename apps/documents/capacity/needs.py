"""From wishes to needs: sizes, times, and on how many machines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .constants import Constants
from .sizes import DEAD, disk
from .times import build_ms, database_cores, dense_ms, words_ms
from .wishes import Wishes

CACHE_SHARE, BUILD_SHARE = 0.6, 0.25  # of a machine's memory; the rest is the system's and the sessions'
BUILDERS = 9  # processes that build one machine's indexes: PostgreSQL's max_parallel_workers of 8, and the session
PROVEN = 0.16  # of a search's work stays with the primary where a replica does it (docs/adr/0016-replicas.md)
READ_BY_VECTOR, READ_BY_WORDS = 130, 300  # rows of tables that a search looks up: candidates and hits; chunks scored
MOST_NODES = 10_000
LARGE_GRAPH, MOST_GRAPHS = 400_000, 32  # recall and fan-out were measured up to these
#: What searches read, by the names of `disk`: least of all to be in memory, and better so.
INDEXES = {"dense": ("vector index",), "hybrid": ("vector index", "word index")}
ROWS = {"dense": ("vectors",), "hybrid": ("vectors", "chunks", "keys of chunks")}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the database is. nodes: machines, without replicas. graphs: partitions or shards."""

    engine: str
    nodes: int
    graphs: int
    replicas: int = 0
    enough: bool = True  # for so much, and so many searches


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Bytes; `ms` and `seconds` of a processor; `cores`: processors that are to be there."""

    chunks: float
    disk: dict[str, float]  # by what it holds
    build_room: float  # of disk, beside what is there: one vector index, built anew
    cached: float  # of memory, all machines: whatever searches read
    cached_indexes: float  # of it vector index and word index
    disk_reads: float  # of a search where only these are cached
    build_memory: float  # for the graph that is being built

    place: Place
    dense_ms: float
    hybrid_ms: float
    clock_ms: float  # of a search while nothing else goes on, at least: partitions one after another, shards at once
    database_cores: float  # for searches and changes, those that are to stay idle too
    web_ms: float  # of a search: the web process, and the model for the question's vector
    web_processes: int
    web_memory: float

    load_seconds: float  # of the database: rows and words
    build_seconds: float  # of the database: the vector index
    build_hours: float  # the same by the clock, on all machines
    embed_seconds: float  # of the model on processors
    embed_cores: int  # to be through in the wished hours
    gpu_hours: float
    gpus: int

    chunks_per_day: float  # to embed and publish
    model_cores: float  # to keep up, evenly over the day
    worker_cores: float  # the same for preparing and publishing, without the database
    rebuilt_days: float | None  # between two builds of the vector index; None where nothing changes
    notes: tuple[str, ...]

    @property
    def disk_total(self) -> float:
        return sum(self.disk.values())


def needs(wishes: Wishes, constants: Constants, *, scale: Mapping[str, float] | None = None) -> Needs:
    """What the wishes take. scale: by the names of `disk`, how many times as much each takes as is computed."""
    held = {name: size * (scale or {}).get(name, 1) for name, size in disk(wishes, constants).items()}
    mode = "hybrid" if wishes.hybrid else "dense"
    cached_indexes = sum(held[name] for name in INDEXES[mode])
    cached = cached_indexes + sum(held[name] for name in ROWS[mode])
    graph = 0.0 if wishes.index == "ivfflat" else wishes.chunks * (constants.graph_memory + wishes.indexed_bytes)
    place = _place(wishes, constants, cached if wishes.cached == "all" else cached_indexes, graph)

    dense = dense_ms(wishes, constants, place.graphs)
    hybrid = dense + words_ms(wishes, constants, place.graphs)
    beside = min(place.graphs, place.nodes * wishes.node_cores) if place.engine == "citus" else 1
    web_ms = constants.web + wishes.new_queries * constants.query_vector
    web = math.ceil(max(1, wishes.searches_per_second * web_ms / 1000 / wishes.busy))
    text = wishes.chunk_tokens * constants.text
    build = place.graphs * build_ms(wishes, constants, wishes.chunks / place.graphs) / 1000
    embed = wishes.chunks * wishes.chunk_tokens * constants.model_token / 1000
    gpu_hours = wishes.chunks / constants.gpu_chunks / 3600
    coming = wishes.new_chunks_per_day
    work = constants.work_document + constants.work_token * wishes.chunk_tokens * wishes.chunks_per_document
    return Needs(
        chunks=wishes.chunks,
        disk=held,
        build_room=held["vector index"] / place.graphs,
        cached=cached,
        cached_indexes=cached_indexes,
        disk_reads=READ_BY_VECTOR + READ_BY_WORDS * wishes.hybrid,
        build_memory=graph / place.graphs,
        place=place,
        dense_ms=dense,
        hybrid_ms=hybrid,
        clock_ms=(hybrid if wishes.hybrid else dense) / beside + web_ms,
        database_cores=database_cores(wishes, constants, place.graphs),
        web_ms=web_ms,
        web_processes=web,
        web_memory=web * constants.process_memory,
        load_seconds=wishes.chunks * (constants.load_chunk + constants.words_build * text) / 1000,
        build_seconds=build,
        build_hours=build / 3600 / (place.nodes * min(BUILDERS, wishes.node_cores)),
        embed_seconds=embed,
        embed_cores=math.ceil(embed / 3600 / wishes.load_hours),
        gpu_hours=gpu_hours,
        gpus=math.ceil(gpu_hours / wishes.load_hours),
        chunks_per_day=coming,
        model_cores=coming * wishes.chunk_tokens * constants.model_token / 1000 / 86400,
        worker_cores=wishes.documents_per_day * work / 1000 / 86400,
        rebuilt_days=DEAD * wishes.chunks / wishes.replaced_per_day if wishes.replaced_per_day else None,
        notes=tuple(_notes(wishes, constants, place)),
    )


def _place(wishes: Wishes, constants: Constants, cached: float, graph: float) -> Place:
    """As few graphs as may be, because each costs every search: one on each machine, and none larger than can be built
    in memory. One PostgreSQL where memory holds what is to be cached, with replicas where its processors are too few;
    else a cluster."""
    for_memory = max(1, math.ceil(cached / (CACHE_SHARE * wishes.node_memory)))
    for_build = max(1, math.ceil(graph / (BUILD_SHARE * wishes.node_memory)))
    if wishes.engine == "postgres" or (wishes.engine == "auto" and for_memory == 1):
        graphs = wishes.graphs or for_build
        writing = database_cores(replace(wishes, searches_per_second=0), constants, graphs)
        searching = database_cores(wishes, constants, graphs) - writing
        if writing + searching <= wishes.node_cores:
            return Place(engine="postgres", nodes=1, graphs=graphs, enough=for_memory == 1)
        replicas = math.ceil(searching / wishes.node_cores)
        enough = for_memory == 1 and writing + PROVEN * searching <= wishes.node_cores
        return Place(engine="postgres", nodes=1, graphs=graphs, replicas=replicas, enough=enough)

    def on(nodes: int) -> tuple[int, bool]:
        """(shards, are so many nodes enough?)"""
        shards = wishes.graphs or math.ceil(for_build / nodes) * nodes
        return shards, database_cores(wishes, constants, shards) <= nodes * wishes.node_cores

    nodes = for_memory
    while nodes < MOST_NODES and not on(nodes)[1]:
        nodes = math.ceil(nodes * 1.05)
    if not on(nodes)[1]:  # more shards cost as much as they bring
        return Place(engine="citus", nodes=for_memory, graphs=on(for_memory)[0], enough=False)
    return Place(engine="citus", nodes=nodes, graphs=on(nodes)[0])


def _notes(wishes: Wishes, constants: Constants, place: Place) -> list[str]:
    notes = []
    if place.engine == "postgres" and not place.enough:
        notes.append("One PostgreSQL of this size is not enough for this: a larger machine, or Citus.")
    if place.engine == "citus" and not place.enough:
        notes.append(
            "No number of nodes does so many searches, because each search asks every shard: larger nodes and fewer"
            " shards, a second cluster, or results that are kept."
        )
    if wishes.chunks > constants.measured_chunks:
        notes.append(f"Times are extrapolated from {constants.measured_chunks:,.0f} chunks.")
    if place.graphs > MOST_GRAPHS:
        notes.append(f"What {place.graphs} shards cost a search is extrapolated from {MOST_GRAPHS}.")
    if wishes.index != "ivfflat" and wishes.chunks / place.graphs > LARGE_GRAPH:
        notes.append(
            "A graph of so many finds less at the same breadth, how much depends on the data (of a million 0.85 to"
            " 0.99 of the ten nearest): watch rag_recall_at_k."
        )
    if wishes.index == "hnsw" and wishes.m != 16:
        notes.append("Times are those of m = 16.")
    if wishes.dimensions != 384:
        notes.append("Embedding is at the pace of the packaged model, which makes 384 dimensions: measure your own.")
    return notes
