"""Searches of the library's 200,000 vectors by Chroma's server over HTTP and by LangChain's Postgres store in process.

    ENV/bin/python benchmarks/peers_search.py DIR/peers.npz DIR/texts.jsonl --database postgresql://...

Runs in the environment of requirements-peers.txt; benchmarks/side_by_side.py writes the files and drives it. What is
loaded stays (Chroma in DIR, LangChain in the database), so that the next run begins at once. Each line of the input is
[arm, clients, seconds], arm being `chroma` or `langchain`, with `filtered` behind it for the filter that 1 % pass; each
line of the output {"seconds": of every call, "wall": all in all, "recall": of those calls}. Chroma is asked by requests
made before, over bare sockets, and its answers are only read; LangChain by as many threads as there are clients.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from drive import at_once
from peers import DIMENSIONS, EF_CONSTRUCTION, M, _chroma_server

K, BATCH = 10, 2_000
EF = {"chroma": 160, "langchain": 160}  # as ours; recall is measured in each run

Call = Callable[[int], list[int]]  # the number of a question; the rows found


def chroma(port: int, data: Any, texts: list[str]) -> dict[str, Callable[[], Call]]:
    import chromadb
    from chromadb.config import Settings

    client = chromadb.HttpClient("127.0.0.1", port, settings=Settings(anonymized_telemetry=False))
    hnsw = {"space": "cosine", "max_neighbors": M, "ef_construction": EF_CONSTRUCTION, "ef_search": EF["chroma"]}
    held = client.get_or_create_collection("library", embedding_function=None, configuration={"hnsw": hnsw})
    held.modify(configuration={"hnsw": {"ef_search": EF["chroma"]}})  # of one that was loaded before
    if held.count() != len(texts):
        for start in range(0, len(texts), BATCH):
            rows = range(start, min(start + BATCH, len(texts)))
            held.upsert(
                ids=[str(row) for row in rows],
                embeddings=data["vectors"][start : rows.stop],
                documents=texts[start : rows.stop],
                metadatas=[{"hundredth": int(data["hundredth"][row])} for row in rows],
            )
    path = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{held.id}/query"

    def asked(more: dict[str, Any]) -> Callable[[], Call]:
        requests = []
        for vector in data["queries"]:
            body = json.dumps({"query_embeddings": [vector.tolist()], "n_results": K, **more}).encode()
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            requests.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

        def connect() -> Call:
            wire = socket.create_connection(("127.0.0.1", port))
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def call(number: int) -> list[int]:
                wire.sendall(requests[number])
                got = wire.recv(1 << 18)
                while (head := got.find(b"\r\n\r\n")) < 0:
                    got += wire.recv(1 << 18)
                size = int(re.search(rb"content-length: *(\d+)", got[:head].lower())[1])  # type: ignore[index]
                while len(got) < head + 4 + size:
                    got += wire.recv(1 << 18)
                at = got.find(b'"ids":[[')
                assert at > 0, got[:300]
                return [int(row) for row in re.findall(rb'"(\d+)"', got[at : got.find(b"]]", at)])]

            return call

        return connect

    told = {"include": ["documents", "metadatas", "distances"]}
    return {"chroma": asked(told), "chroma filtered": asked(told | {"where": {"hundredth": 1}})}


def langchain(database: str, data: Any, texts: list[str]) -> dict[str, Callable[[], Call]]:
    from langchain_core.embeddings import Embeddings
    from langchain_postgres import PGVector
    from sqlalchemy import create_engine, make_url, text

    class Nothing(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise NotImplementedError

        def embed_query(self, text: str) -> list[float]:
            raise NotImplementedError

    url = make_url(database).set(drivername="postgresql+psycopg")
    engine = create_engine(
        url.update_query_dict({"options": f"-chnsw.ef_search={EF['langchain']}"}), pool_size=16, max_overflow=0
    )
    store = PGVector(
        Nothing(), connection=engine, embedding_length=DIMENSIONS, collection_name="library", use_jsonb=True
    )
    table = "langchain_pg_embedding"
    with engine.begin() as connection:
        loaded = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar()
    if loaded != len(texts):
        with engine.begin() as connection:
            collection = connection.execute(text("SELECT uuid FROM langchain_pg_collection")).scalar()
            copying = connection.connection.cursor()
            with copying.copy(f"COPY {table} (id, collection_id, embedding, document, cmetadata) FROM STDIN") as out:
                for row, (vector, content) in enumerate(zip(data["vectors"], texts, strict=True)):
                    metadata = json.dumps({"hundredth": int(data["hundredth"][row])})
                    out.write_row((str(row), collection, str(vector.tolist()), content, metadata))
            connection.execute(text("SET maintenance_work_mem = '1GB'"))
            hnsw = f"USING hnsw (embedding vector_cosine_ops) WITH (m = {M}, ef_construction = {EF_CONSTRUCTION})"
            connection.execute(text(f"CREATE INDEX ON {table} {hnsw}"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM ANALYZE {table}"))
    queries = [vector.tolist() for vector in data["queries"]]

    def asked(wanted: dict[str, Any] | None) -> Callable[[], Call]:
        def call(number: int) -> list[int]:
            found = store.similarity_search_by_vector(queries[number], k=K, filter=wanted)
            return [int(document.id) for document in found]

        return lambda: call

    return {"langchain": asked(None), "langchain filtered": asked({"hundredth": {"$eq": 1}})}


def _measure(calls: list[Call], after: Iterator[int], seconds: float, nearest: list[set[int]]) -> dict[str, Any]:
    taken: list[float] = []
    recall: list[float] = []
    began = time.perf_counter()

    def repeat(call: Call) -> None:
        while time.perf_counter() < began + seconds:
            number = next(after) % len(nearest)
            started = time.perf_counter()
            found = call(number)
            taken.append(time.perf_counter() - started)
            recall.append(len(nearest[number].intersection(found)) / K)

    at_once(repeat, calls)
    return {"seconds": taken, "wall": time.perf_counter() - began, "recall": sum(recall) / len(recall)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="vectors, queries, hundredth, nearest, nearest_filtered")
    parser.add_argument("texts", type=Path, help="a JSON string a line")
    parser.add_argument("--database", required=True, help="a Postgres with pgvector, for LangChain")
    told = parser.parse_args()
    data = np.load(told.data)
    data = {name: data[name] for name in data.files}
    texts = [json.loads(line) for line in told.texts.open()]
    with _chroma_server(str(told.data.parent / "chroma")) as port:
        arms = chroma(port, data, texts) | langchain(told.database, data, texts)
        print("ready", flush=True)
        counter = itertools.count()
        for line in sys.stdin:
            arm, clients, seconds = json.loads(line)
            nearest = data["nearest_filtered" if arm.endswith("filtered") else "nearest"]
            calls = [arms[arm]() for _ in range(clients)]
            print(json.dumps(_measure(calls, counter, seconds, [set(row.tolist()) for row in nearest])), flush=True)


if __name__ == "__main__":
    main()
