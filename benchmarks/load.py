"""Loading many documents with the `fake` embedder: by `manage.py ingest --bulk` and by the workers, beside the same
vectors written straight into the same indexed table, and a second run beside a bare comparison of hashes in SQL."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg
from django.db import connections

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import db, spaces
from apps.documents.models import Collection, EmbeddingSpace
from ragsite import embedded
from tests.support.processes import ROOT, Server, wait_for, worker

from .corpus import passages
from .stack import Clock, fake_house, wait_until_done

LONG, EACH = 600, 20  # documents of so many passages
SHORT = 6_000
AGAIN = 30_000
BY_WORKERS = 2_000


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    texts = passages(LONG * EACH)
    long = ["\n\n".join(texts[first : first + EACH]) for first in range(0, len(texts), EACH)]
    collection, _ = fake_house("long")
    seconds, index_seconds = ingest(data, collection, long)
    chunks = _chunks(collection)
    yield (
        f"first load, {LONG} documents, {chunks} chunks, before the vector index is built",
        ">= 3,000 chunks/s",
        f"{chunks / seconds:.0f} chunks/s ({seconds:.1f} s); the index {index_seconds:.1f} s",
    )
    short = passages(LONG * EACH + SHORT)[-SHORT:]
    ours = [_indexed(data, short, number) for number in range(2)]
    raw = [_raw(short, number, streams) for number in range(2) for streams in (1, 2)]
    yield (
        f"{SHORT} one-chunk documents, HNSW live and {SHORT} vectors in it; COPY of the vectors alone, 1 and 2 streams",
        ">= 0.8 of raw",
        f"{_both(ours)} chunks/s; raw {_both(raw[::2])} and {_both(raw[1::2])}: "
        f"{max(ours) / max(raw[::2]):.2f} and {max(ours) / max(raw[1::2]):.2f} of it",
    )
    yield from _rerun(data)
    yield from _by_workers(data)


def _both(rates: list[float]) -> str:
    return ", ".join(f"{rate:.0f}" for rate in rates)


def _chunks(collection: Collection) -> int:
    with tenancy.scope(collection.tenant_id):
        return Collection.objects.get(id=collection.id).chunks


def ingest(data: Path, collection: Collection, texts: list[str], *, name: str = "p") -> tuple[float, float]:
    """(seconds to load, seconds to index) as the command tells them."""
    path = _write(data, texts, name=name)
    with tenancy.scope(collection.tenant_id):
        slug = Tenant.objects.get(id=collection.tenant_id).slug
    argv = [sys.executable, "manage.py", "ingest", str(path), "--collection", "docs", "--tenant", slug, "--bulk"]
    told = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = re.search(r"in ([\d.]+) s \(\d+/s\)(?:, their vector index in ([\d.]+) s)?", told)
    assert found is not None, told
    return float(found[1]), float(found[2] or 0)


def _write(data: Path, texts: list[str], *, name: str = "p") -> Path:
    path = data / "texts.ndjson"
    path.write_text("".join(json.dumps({"source_uri": f"{name}{n}", "text": t}) + "\n" for n, t in enumerate(texts)))
    return path


def _indexed(data: Path, texts: list[str], number: int) -> float:
    """Documents/s into a space whose index is there and stays."""
    collection, _ = fake_house(f"live{number}")
    ingest(data, collection, [f"{text} Before." for text in texts], name="before")
    seconds, index_seconds = ingest(data, collection, texts)
    assert index_seconds == 0
    return len(texts) / seconds


def _raw(texts: list[str], number: int, streams: int) -> float:
    """Vectors/s by COPY into an embedding table like that, 200 a transaction, from one or more connections."""
    space: EmbeddingSpace = fake_house(f"raw{number}{streams}")[0].space
    embedder = spaces.embedder_for(space)
    before, vectors = embedder.embed([f"{text} Before." for text in texts]), embedder.embed(texts)
    ids = [uuid4().bytes for _ in range(4)]

    def write(sent: list[bytes]) -> None:
        # As the superuser, past the wall: row-level security and COPY exclude each other.
        with _superuser() as connection, connection.cursor() as cursor:
            for first in range(0, len(sent), 200):
                copied = f'COPY "{space.table}" FROM STDIN (FORMAT BINARY)'
                with cursor.copy(copied) as copy:
                    copy.set_types(["uuid", "uuid", "uuid", "uuid", "bool", "bytea"])
                    for vector in sent[first : first + 200]:
                        copy.write_row((uuid4(), uuid4(), UUID(bytes=ids[0]), UUID(bytes=ids[1]), True, vector))
                connection.commit()

    write(db.vector_bytes(list(before), space.storage))
    sent = db.vector_bytes(list(vectors), space.storage)
    with Clock() as clock, ThreadPoolExecutor(streams) as pool:
        list(pool.map(write, [sent[stream::streams] for stream in range(streams)]))
    return len(texts) / clock.seconds


def _rerun(data: Path) -> Iterator[tuple[str, str, str]]:
    texts = passages(AGAIN)
    collection, _ = fake_house("again")
    first, index_seconds = ingest(data, collection, texts)
    table = _bare_table(collection.space, texts)
    ours, bare = [], []
    for number in range(2):
        changed = [f"Revised {number}. {text}" if at % 100 == 0 else text for at, text in enumerate(texts)]
        path = _write(data, changed)
        with Clock() as diff:
            assert _hash_diff(table, path, collection.space) == AGAIN // 100
        bare.append(diff.seconds)
        with Clock() as whole:
            again, _ = ingest(data, collection, changed)
        ours.append((again, whole.seconds))
    yield (
        f"{AGAIN} passages again, 1 % changed, beside a bare hash diff in SQL that does no more than that",
        "<= 3 times as long",
        f"{min(ours)[0]:.1f} s (the command from its start to its end {min(ours)[1]:.1f} s); bare {min(bare):.1f} s: "
        f"{min(ours)[0] / min(bare):.1f} times (first load {first:.1f} s, "
        f"{AGAIN / (first + index_seconds):.0f}/s with its index)",
    )


def _bare_table(space: EmbeddingSpace, texts: list[str]) -> str:
    """A table of texts, hashes and vectors with an HNSW index, as a script of one's own would have it."""
    table = f"bare_{uuid4().hex[:8]}"
    vectors = db.vector_bytes(list(spaces.embedder_for(space).embed(texts)), space.storage)
    with _superuser() as connection, connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE {table} (source_uri text PRIMARY KEY, sha256 bytea, text text, embedding {space.storage}"
            f"({space.dimensions}))"
        )
        with cursor.copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["text", "bytea", "text", "bytea"])
            for number, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
                copy.write_row((f"p{number}", hashlib.sha256(text.encode()).digest(), text, vector))
        cursor.execute(f"CREATE INDEX ON {table} USING hnsw (embedding {space.storage}_cosine_ops)")
    return table


def _hash_diff(table: str, path: Path, space: EmbeddingSpace) -> int:
    """Read the file, hash, send all hashes, compare in one statement; embed and write what has changed. How many."""
    texts = {}
    with path.open("rb") as file:
        for line in file:
            sent = json.loads(line)
            texts[sent["source_uri"]] = sent["text"]
    with _superuser() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE sent (source_uri text, sha256 bytea)")
        with cursor.copy("COPY sent FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["text", "bytea"])
            for name, text in texts.items():
                copy.write_row((name, hashlib.sha256(text.encode()).digest()))
        cursor.execute(
            f"SELECT source_uri, sent.sha256 FROM sent LEFT JOIN {table} stored USING (source_uri)"
            " WHERE stored.sha256 IS DISTINCT FROM sent.sha256"
        )
        changed = cursor.fetchall()
        vectors = spaces.embedder_for(space).embed([texts[name] for name, _ in changed])
        cursor.executemany(
            f"INSERT INTO {table} VALUES (%s, %s, %s, %s) ON CONFLICT (source_uri) DO UPDATE"
            " SET sha256 = EXCLUDED.sha256, text = EXCLUDED.text, embedding = EXCLUDED.embedding",
            [
                (name, digest, texts[name], str(vector.tolist()))
                for (name, digest), vector in zip(changed, vectors, strict=True)
            ],
        )
    return len(changed)


def _superuser() -> psycopg.Connection:
    return psycopg.connect(embedded.superuser_url(embedded.data_dir()), dbname="ragsite")


def _by_workers(data: Path) -> Iterator[tuple[str, str, str]]:
    rates = []
    texts = passages(BY_WORKERS)
    for count in (1, 2):
        collection, key = fake_house(f"workers{count}")
        lines = (
            json.dumps({"collection": "docs", "source_uri": f"w{n}", "text": f"{text} {count}."}).encode() + b"\n"
            for n, text in enumerate(texts)
        )
        with Server(data) as server, server.client(key) as client, Clock() as accepting:
            client.post(
                "/api/v1/documents/bulk",
                content=b"".join(lines),
                headers={"Content-Type": "application/x-ndjson"},
                timeout=httpx.Timeout(300),
            ).raise_for_status()
        accept_rate = BY_WORKERS / accepting.seconds
        connections.close_all()
        with ExitStack() as stack:
            running = [
                stack.enter_context(worker(data, "prepare", "embed", "default", name=f"w{n}")) for n in range(count)
            ]
            with Clock() as clock:
                wait_for(
                    lambda running=running: all(b"ready." in each.log.read_bytes() for each in running), what="workers"
                )
                _wake(count)
                wait_until_done(collection, BY_WORKERS, seconds=300)
        rates.append(BY_WORKERS / clock.seconds)
    yield (
        f"{BY_WORKERS} one-chunk documents by 1 and 2 worker processes that do all stages, HNSW live, start included",
        "scales",
        f"{_both(rates)} documents/s: {rates[1] / rates[0]:.2f} times (accepted by one request at {accept_rate:.0f}/s)",
    )


def _wake(count: int) -> None:
    from apps.documents import ledger

    for stage in (ledger.Stage.PREPARE, ledger.Stage.EMBED):
        ledger.wake(stage, times=count)
