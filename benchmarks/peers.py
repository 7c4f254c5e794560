"""What LangChain, LlamaIndex and Chroma take to ingest passages with a free embedder, and again with 1 % changed.

`write_inputs` makes the files, in the project's environment; the program itself runs in one that holds only
requirements-peers.txt, measures one peer and prints one line of JSON:

    ENV/bin/python benchmarks/peers.py langchain --texts DIR/texts.jsonl --changed DIR/changed.jsonl \\
        --vectors DIR/vectors.npz --database postgresql://...

The database needs pgvector; a schema is made in it and dropped at the end. Every peer has one client, one chunk per
passage and an HNSW index (cosine, m 16, ef_construction 64) that is there before the first passage. The clock stops
when the peer has answered a question: an index that is written behind must have caught up by then. Batch sizes are
the fastest of those tried with 2,000 passages.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

# Each peer is imported by its own function: an import of one would weigh on another's memory and start-up, and
# write_inputs runs where none is installed.

DIMENSIONS, M, EF_CONSTRUCTION = 384, 16, 64
CHANGED_EVERY = 100

Row = dict[str, str]  # id, text


def write_inputs(directory: Path, count: int) -> None:
    """Write texts.jsonl, changed.jsonl (every 100th passage revised) and vectors.npz of `count` passages."""
    from apps.documents.embedding.fake import FakeEmbedder

    from .corpus import passages

    texts = passages(count)
    changed = [f"Revised. {text}" if n % CHANGED_EVERY == 0 else text for n, text in enumerate(texts)]
    for name, lines in (("texts", texts), ("changed", changed)):
        rows = (json.dumps({"id": f"passage-{n}", "text": text}) + "\n" for n, text in enumerate(lines))
        (directory / f"{name}.jsonl").write_text("".join(rows))
    embed = FakeEmbedder(dimensions=DIMENSIONS).embed
    np.savez(directory / "vectors.npz", texts=embed(texts), changed=embed(changed))


class Embedder:
    """Looks up each text's vector, float32 [384], and counts the texts it was given."""

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self.vectors = vectors
        self.embedded = 0

    def embed(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.embedded += len(texts)
        return [self.vectors[text] for text in texts]

    def lists(self, texts: Sequence[str]) -> list[list[float]]:
        return [vector.tolist() for vector in self.embed(texts)]


@dataclass
class Peer:
    """A running peer: `ingest` makes it hold these rows, `search` asks its index, `texts` are all it holds."""

    ingest: Callable[[list[Row]], object]
    search: Callable[[np.ndarray], object]
    texts: Callable[[], list[str]]
    settings: dict[str, Any]


@contextlib.contextmanager
def langchain(embedder: Embedder, database: str) -> Iterator[Peer]:
    """`index()` with SQLRecordManager and PGVector on one Postgres.

    PGVector although it is deprecated: its successor PGVectorStore commits every row by itself and took 1.6 times
    as long. Batches of 50, 100, 500, 1000 and 2000 were no faster, nor were the other kinds of cleanup.
    """
    from langchain_classic.indexes import SQLRecordManager, index
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_postgres import PGVector
    from sqlalchemy import create_engine, text

    class Free(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return embedder.lists(texts)

        def embed_query(self, text: str) -> list[float]:
            return embedder.lists([text])[0]

    batch, cleanup = 200, "incremental"
    with _schema(database) as (url, schema, column):
        engine = create_engine(url.set(drivername="postgresql+psycopg"))
        store = PGVector(Free(), connection=engine, embedding_length=DIMENSIONS, create_extension=False)
        hnsw = f"USING hnsw (embedding vector_cosine_ops) WITH (m = {M}, ef_construction = {EF_CONSTRUCTION})"
        with engine.begin() as connection:
            connection.execute(text(f"CREATE INDEX ON {schema}.langchain_pg_embedding {hnsw}"))
        records = SQLRecordManager("passages", engine=engine)
        records.create_schema()

        def ingest(rows: list[Row]) -> None:
            documents = [Document(page_content=row["text"], metadata={"source": row["id"]}) for row in rows]
            how = {"cleanup": cleanup, "source_id_key": "source", "key_encoder": "sha256"}
            index(documents, records, store, batch_size=batch, **how)

        yield Peer(
            ingest,
            lambda vector: store.similarity_search_by_vector(vector.tolist(), k=10),
            lambda: column("langchain_pg_embedding", "document"),
            {"store": "PGVector", "type": "vector", "batch": batch, "cleanup": cleanup}
            | _versions("langchain-core", "langchain-postgres"),
        )
        engine.dispose()


@contextlib.contextmanager
def llamaindex(embedder: Embedder, database: str) -> Iterator[Peer]:
    """IngestionPipeline with docstore upserts and PGVectorStore, half-precision vectors.

    The docstore is SimpleDocumentStore, loaded before and persisted after each run: PostgresDocumentStore took
    three times as long. Batches of 100, 200, 1000 and 2000 were slower than 500.
    """
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
    from llama_index.core.node_parser import TextSplitter
    from llama_index.core.schema import Document
    from llama_index.core.storage.docstore import SimpleDocumentStore
    from llama_index.core.vector_stores import VectorStoreQuery
    from llama_index.vector_stores.postgres import PGVectorStore

    class Whole(TextSplitter):
        """Without a parser no node refers to its document, and an upsert leaves the old version in the store."""

        def split_text(self, text: str) -> list[str]:
            return [text]

    class Free(BaseEmbedding):
        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return embedder.lists(texts)

        def _get_text_embedding(self, text: str) -> list[float]:
            return embedder.lists([text])[0]

        _get_query_embedding = _get_text_embedding

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_text_embedding(query)

    batch = 500
    with _schema(database) as (url, schema, column), tempfile.TemporaryDirectory() as directory:
        store = PGVectorStore(
            connection_string=_with_password(url, "postgresql+psycopg2"),
            async_connection_string=_with_password(url, "postgresql+asyncpg"),
            table_name="passages",
            schema_name=schema,
            embed_dim=DIMENSIONS,
            use_halfvec=True,
            hnsw_kwargs={
                "hnsw_m": M,
                "hnsw_ef_construction": EF_CONSTRUCTION,
                "hnsw_ef_search": 40,
                "hnsw_dist_method": "halfvec_cosine_ops",
            },
            initialization_fail_on_error=True,
        )
        store.add([])  # makes the table and its index

        def ingest(rows: list[Row]) -> None:
            pipeline = IngestionPipeline(
                transformations=[Whole(), Free(embed_batch_size=batch)],
                vector_store=store,
                docstore=SimpleDocumentStore(),
                docstore_strategy=DocstoreStrategy.UPSERTS,
                disable_cache=True,  # it would hash whole batches to save an embedder that is free
            )
            if any(Path(directory).iterdir()):
                pipeline.load(directory)
            for start in range(0, len(rows), batch):
                part = rows[start : start + batch]
                pipeline.run(documents=[Document(id_=row["id"], text=row["text"]) for row in part])
            pipeline.persist(directory)

        yield Peer(
            ingest,
            lambda vector: store.query(VectorStoreQuery(query_embedding=vector.tolist(), similarity_top_k=10)),
            lambda: column("data_passages", "text"),
            {"store": "PGVectorStore", "type": "halfvec", "docstore": "SimpleDocumentStore, persisted", "batch": batch}
            | _versions("llama-index-core", "llama-index-vector-stores-postgres"),
        )
        store.client.dispose()


@contextlib.contextmanager
def chroma(embedder: Embedder, database: str | None) -> Iterator[Peer]:
    """Chroma's server over HTTP, every passage upserted each time with its vector; needs no database.

    Batches of 100, 300, 500 and 1000 were slower than the largest the server takes, and so was writing the index
    less often (batch_size 1000, sync_threshold 10000).
    """
    import chromadb
    from chromadb.config import Settings

    with tempfile.TemporaryDirectory() as directory, _chroma_server(directory) as port:
        client = chromadb.HttpClient("127.0.0.1", port, settings=Settings(anonymized_telemetry=False))
        hnsw = {"space": "cosine", "max_neighbors": M, "ef_construction": EF_CONSTRUCTION}
        passages = client.create_collection("passages", embedding_function=None, configuration={"hnsw": hnsw})
        batch = client.get_max_batch_size()

        def ingest(rows: list[Row]) -> None:
            for start in range(0, len(rows), batch):
                part = rows[start : start + batch]
                texts = [row["text"] for row in part]
                passages.upsert(ids=[row["id"] for row in part], embeddings=embedder.embed(texts), documents=texts)

        yield Peer(
            ingest,
            lambda vector: passages.query(query_embeddings=[vector], n_results=10),
            lambda: passages.get(include=["documents"])["documents"],
            {"server": "HTTP", "batch": batch} | _versions("chromadb"),
        )


PEERS = {"langchain": langchain, "llamaindex": llamaindex, "chroma": chroma}


def measure(
    name: str, first: list[Row], second: list[Row], vectors: dict[str, np.ndarray], database: str | None
) -> dict:
    """The line to print. Raises SystemExit when the peer does not hold exactly the texts it was given."""
    embedder = Embedder(vectors)
    with PEERS[name](embedder, database) as peer:

        def run(rows: list[Row]) -> tuple[float, int]:
            """(seconds, texts embedded)."""
            embedder.embedded = 0
            started = time.perf_counter()
            peer.ingest(rows)
            peer.search(vectors[rows[0]["text"]])
            seconds = time.perf_counter() - started
            if sorted(peer.texts()) != sorted(row["text"] for row in rows):
                sys.exit(f"{name} does not hold the {len(rows)} texts it was given")
            return round(seconds, 2), embedder.embedded

        load_seconds, _ = run(first)
        rerun_seconds, rerun_embedded = run(second)
        return {
            "peer": name,
            "documents": len(first),
            "load_seconds": load_seconds,
            "rerun_seconds": rerun_seconds,
            "rerun_embedded": rerun_embedded,
            "settings": peer.settings,
        }


@contextlib.contextmanager
def _schema(database: str) -> Iterator[tuple[Any, str, Callable[[str, str], list[str]]]]:
    """A schema of its own: (the URL with it first on the search path, its name, what reads a column of a table)."""
    from sqlalchemy import create_engine, make_url, text

    schema = f"peers_{uuid.uuid4().hex[:8]}"
    engine = create_engine(make_url(database).set(drivername="postgresql+psycopg"))

    def column(table: str, name: str) -> list[str]:
        with engine.connect() as connection:
            return list(connection.execute(text(f"SELECT {name} FROM {schema}.{table}")).scalars())

    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    try:
        yield make_url(database).update_query_dict({"options": f"-csearch_path={schema},public"}), schema, column
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
        engine.dispose()


def _with_password(url: Any, driver: str) -> str:
    """LlamaIndex takes str() of an URL, which masks the password."""
    return url.set(drivername=driver).render_as_string(hide_password=False)


@contextlib.contextmanager
def _chroma_server(directory: str) -> Iterator[int]:
    """The port of a server over `directory` that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("chroma"), "run", "--path", directory, "--port", str(port)]
    server = subprocess.Popen([*command, "--host", "127.0.0.1"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()


def _versions(*names: str) -> dict[str, str]:
    return {name: version(name) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--texts", type=Path, required=True, help="JSON lines of id and text")
    parser.add_argument("--changed", type=Path, required=True, help="the same ids, some texts changed")
    parser.add_argument("--vectors", type=Path, required=True, help="arrays `texts` and `changed`, a row a line")
    parser.add_argument("--database", help="a Postgres with pgvector; Chroma needs none")
    asked = parser.parse_args()
    if asked.peer != "chroma" and not asked.database:
        parser.error(f"{asked.peer} needs --database")
    first, second = ([json.loads(line) for line in path.open()] for path in (asked.texts, asked.changed))
    arrays = np.load(asked.vectors)
    vectors = {
        row["text"]: vector
        for rows, name in ((first, "texts"), (second, "changed"))
        for row, vector in zip(rows, arrays[name], strict=True)
    }
    print(json.dumps(measure(asked.peer, first, second, vectors, asked.database)))


if __name__ == "__main__":
    main()
