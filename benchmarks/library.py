"""A library of 200,000 chunks in the real schema, live and indexed, to search in.

- **Documents**: 50,000, of 1 to 7 chunks, on average 4.
- **Texts**: sentences of real passages (`../shared/data/qa`), two neighbouring ones at a time and from one set, put
  together until a chunk has a hundred words: each word is as frequent as in the real texts, and each text is new.
- **Vectors**: 384 dimensions, unit length. `TOPICS` centres point anywhere; a document has one topic, and each of its
  chunks is the centre plus noise `SPREAD` times as long, normalised. Queries are made in the same way.
- **Metadata**: `half`, `tenth`, `hundredth`, `thousandth` and `ten_thousandth`, each with values that so many documents
  share, drawn independently of the topic; `number`, from 0, each once; `topic`; `tags`, a list of three.

Loading takes some minutes: `python -m benchmarks --keep DIR` leaves it in DIR for the next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np
import numpy.typing as npt
from django.db import connections

from apps.access import keys, tenancy
from apps.documents import collections, lexicon, merge, spaces, vector_index, words
from apps.documents.accept import Submission
from apps.documents.models import Collection, EmbeddingSpace
from apps.documents.parsing import Parsed
from apps.documents.prepare import StagedChunk

from .corpus import QUESTIONS, WORDS, queries

CHUNKS, DIMENSIONS, WORDS_PER_CHUNK, AT_ONCE = 200_000, 384, 100, 200
TOPICS, SPREAD = 1_000, 1.0
SETS = ("squadshifts_new_wiki", "squadshifts_amazon_reviews", "squadshifts_reddit")
NAME = "library"
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Library:
    """The loaded library. vectors [chunks, 384] and ids [chunks] belong together; topics: of each document."""

    collection: Collection
    key: str
    vectors: Floats
    ids: list[UUID]
    sizes: npt.NDArray[np.int64]
    topics: npt.NDArray[np.int64]

    @cached_property
    def asked(self) -> list[tuple[str, Floats]]:
        """A thousand questions, with a vector that stands for each."""
        dice = np.random.default_rng(3)
        texts = queries(1_000)
        return list(zip(texts, _around(_centres()[dice.choice(self.topics, len(texts))], dice), strict=True))

    def document_of_chunk(self) -> npt.NDArray[np.int64]:
        """The number of each chunk's document."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def changed(self, part: float) -> Changed:
        """A part of the documents as their next versions would be: of the same topics, every chunk another."""
        dice = np.random.default_rng(5)
        of_chunk = self.document_of_chunk()
        rows = np.flatnonzero((dice.random(len(self.sizes)) < part)[of_chunk])
        documents = [uuid5(self.collection.id, _name(number)) for number in of_chunk[rows]]
        ids = [uuid5(self.ids[row], "2") for row in rows]
        return Changed(rows, _around(_centres()[self.topics[of_chunk[rows]]], dice), documents, ids)

    def nearest(self, query: Floats, k: int, among: npt.NDArray[np.int64] | None = None) -> set[UUID]:
        """The k chunks that are nearest by cosine, of all or of those `among` (rows): what an exact search finds."""
        rows = np.arange(len(self.vectors)) if among is None else among
        near = (self.vectors if among is None else self.vectors[rows]) @ query
        best = np.argpartition(-near, k)[:k] if len(rows) > k else np.arange(len(rows))
        return {self.ids[row] for row in rows[best]}


@dataclass(frozen=True)
class Changed:
    """Rows of the library, and what comes in their places."""

    rows: npt.NDArray[np.int64]
    vectors: Floats
    documents: list[UUID]
    ids: list[UUID]


def library(data: Path, *, chunks: int = CHUNKS) -> Library:
    """The library in the database of `data`: the one that is kept there, else a new one."""
    tenant = keys.ensure_tenant(slug=NAME)
    key = keys.create_key(tenant_id=tenant.id, name="bench", scopes=["read", "write", "admin"])[1]
    space = EmbeddingSpace.objects.filter(slug=NAME).first() or spaces.create(
        slug=NAME, backend="fake", model="fake", dimensions=DIMENSIONS
    )
    with tenancy.scope(tenant.id):
        found = Collection.objects.select_related("space").filter(slug=NAME).first()
        collection = found or collections.create(tenant_id=tenant.id, slug=NAME, name="Library", space=space.slug)
    dice = np.random.default_rng(1)
    sizes = _sizes(dice, chunks)
    topics = dice.integers(0, TOPICS, len(sizes))
    vectors = _around(_centres()[np.repeat(topics, sizes)], dice)
    names = [uuid5(collection.id, _name(number)) for number in range(len(sizes))]
    ids = [uuid5(name, str(n)) for name, size in zip(names, sizes, strict=True) for n in range(size)]
    kept = Library(collection, key, vectors, ids, sizes, topics)
    done = data / "library"  # a file that says how many chunks there are, written when all is done
    if found is None:
        _load(kept)
        done.write_text(str(chunks))
    elif not done.exists() or done.read_text() != str(chunks):
        raise SystemExit(f"{data} holds an unfinished library, or another one: remove it")
    with tenancy.scope(tenant.id):
        return Library(collections.find(NAME), key, vectors, ids, sizes, topics)


def _load(kept: Library) -> None:
    with no_word_index(), vector_index.index_after(kept.collection.space, coming=len(kept.ids)):
        write(kept, range(len(kept.sizes)), chunk_texts())
    lexicon.count(tenant_id=kept.collection.tenant_id, collection_id=kept.collection.id)
    with connections["owner"].cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def write(kept: Library, documents: range, texts: Iterator[tuple[str, str]]) -> None:
    """Some of the library's documents, live, as a first load writes them."""
    dice = np.random.default_rng(6)
    ends = np.cumsum(kept.sizes)
    shared = shares(len(kept.sizes))
    tags = dice.integers(0, 200, (len(kept.sizes), 3))
    for start in range(documents.start, documents.stop, AT_ONCE):
        new, vectors = [], {}
        for number in range(start, min(start + AT_ONCE, documents.stop)):
            metadata = {name: f"{name}-{values[number]}" for name, values in shared.items()}
            metadata |= {"number": number, "topic": int(kept.topics[number])}
            metadata |= {"tags": [f"tag-{tag}" for tag in tags[number]]}
            first = int(ends[number] - kept.sizes[number])
            mine = kept.ids[first : int(ends[number])]
            new.append(_document(kept.collection, number, mine, metadata, texts))
            vectors |= {chunk.sha256: kept.vectors[first + chunk.ordinal] for chunk in new[-1].chunks}
        merge.write(kept.collection, new, vectors)


def shares(documents: int) -> dict[str, npt.NDArray[np.int64]]:
    """By the names of the shared attributes: the number of each document's value."""
    dice = np.random.default_rng(2)
    counts = {"half": 2, "tenth": 10, "hundredth": 100, "thousandth": 1_000, "ten_thousandth": 10_000}
    return {name: dice.permutation(documents) % count for name, count in counts.items()}


def _document(
    collection: Collection, number: int, ids: list[UUID], metadata: dict[str, object], texts: Iterator[tuple[str, str]]
) -> merge.New:
    name = _name(number)
    document_id = uuid5(collection.id, name)
    chunks, start, parts, title = [], 0, [], ""
    for ordinal, chunk_id in enumerate(ids):
        title, text = next(texts)
        digest = hashlib.sha256(text.encode()).digest()
        tokens = round(len(text.split()) * 1.3)
        end = start + len(text)
        place = (document_id, 1, ordinal, chunk_id, False, start, end)
        chunks.append(StagedChunk(*place, text, words.to_index(text), digest, tokens, (title,)))
        parts.append(text)
        start = end + 2
    whole = "\n\n".join(parts)
    data = whole.encode()
    submission = Submission(io.BytesIO(data), "text/plain", "", source_uri=name, metadata=metadata)
    return merge.New(
        submission, document_id, name, data, hashlib.sha256(data).digest(), Parsed(whole, title=title), chunks
    )


def chunk_texts(words_each: int = WORDS_PER_CHUNK) -> Iterator[tuple[str, str]]:
    """(title, text of a chunk), without end; no text twice, because a text has one vector."""
    dice = random.Random(4)
    seen: set[str] = set()
    sets = []
    for name in SETS:
        path = QUESTIONS.parent / name / "corpus.jsonl"
        passages = [json.loads(line) for line in path.open()] if path.exists() else _made_up(dice)
        sets.append([(each["title"], re.split(r"(?<=[.!?])\s+", each["text"].strip())) for each in passages])
    while True:
        passages = dice.choice(sets)
        title, found, words = dice.choice(passages)[0], [], 0
        while words < words_each:
            sentences = dice.choice(passages)[1]
            first = dice.randrange(len(sentences))
            found += sentences[first : first + 2]
            words += sum(len(sentence.split()) for sentence in sentences[first : first + 2])
        text = " ".join(found)
        if text not in seen:
            seen.add(text)
            yield title, text


def _made_up(dice: random.Random) -> list[dict[str, str]]:
    sentences = [" ".join(dice.choices(WORDS, k=18)).capitalize() + "." for _ in range(10_000)]
    return [{"title": f"Passage {n}", "text": " ".join(sentences[n : n + 8])} for n in range(0, 10_000, 8)]


def _sizes(dice: np.random.Generator, chunks: int) -> npt.NDArray[np.int64]:
    """Chunks per document: 1 to 7, together exactly so many."""
    sizes = dice.integers(1, 8, chunks // 4 * 2)
    whole = int(np.searchsorted(np.cumsum(sizes), chunks))
    rest = chunks - int(sizes[:whole].sum())
    return np.append(sizes[:whole], rest) if rest else sizes[:whole]


def _centres(topics: int = TOPICS, dimensions: int = DIMENSIONS) -> Floats:
    return _unit(np.random.default_rng(0).standard_normal((topics, dimensions), np.float32))


def _around(centres: Floats, dice: np.random.Generator) -> Floats:
    noise = dice.standard_normal(centres.shape, np.float32) / np.float32(centres.shape[1] ** 0.5)
    return _unit(centres + np.float32(SPREAD) * noise)


def _unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _name(number: int) -> str:
    return f"library/{number}"


@contextlib.contextmanager
def no_word_index() -> Iterator[None]:
    """Without the chunks' GIN indexes: they are built in a tenth of the time that filling them takes."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            "SELECT i.indexrelid::regclass::text, replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ')"
            " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam"
            " WHERE i.indrelid = 'documents_chunk'::regclass AND a.amname = 'gin'"
        )
        found = cursor.fetchall()
        for name, _ in found:
            cursor.execute(f"DROP INDEX {name}")
        yield
        cursor.execute("SET maintenance_work_mem = '512MB'")
        for _, definition in found:
            cursor.execute(definition)
