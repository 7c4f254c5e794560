"""What each chunking strategy and size does to retrieval, on real questions: `python -m benchmarks.chunking`.

Two corpora: the articles of SQuADShifts' new Wikipedia (their paragraphs put together again; an answer is found where
its own words of the right paragraph are), and technical pages with headings (an answer is found where its words stand
in a chunk of the right page). Dense retrieval by the default model, exact. Strategies are compared at the same number
of tokens given to whoever answers: the share of questions whose answer is within the first 512 and 1,024 tokens of
chunks.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from apps.documents.chunking import chunk
from apps.documents.embedding import get_embedder
from apps.documents.parsing import Parsed, parse

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
QUESTIONS = 600
BUDGETS = (512, 1024)  # tokens
GRID: tuple[tuple[str, int, int], ...] = (
    *(("recursive", size, 0) for size in (64, 100, 150, 200, 254)),
    ("recursive", 200, 40),
    *(("heading", size, 0) for size in (100, 200)),
    *(("fixed", size, size // 5) for size in (100, 200)),
    ("fixed", 200, 0),
    *(("semantic", size, 0) for size in (100, 200)),
)


@dataclass(frozen=True, slots=True)
class Question:
    """`place`: where the answer stands (document, start, end); of several answers any one will do."""

    text: str
    document: str
    answers: tuple[str, ...]
    span: tuple[int, int] | None


def wikipedia() -> tuple[dict[str, Parsed], list[Question]]:
    """Articles of several paragraphs each, and questions with the place of their answer."""
    folder = SHARED / "qa" / "squadshifts_new_wiki"
    paragraphs: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for line in (folder / "corpus.jsonl").read_text().splitlines():
        row = json.loads(line)
        paragraphs[row["title"]].append((row["id"], row["text"]))
    documents, places = {}, {}
    for title, rows in paragraphs.items():
        text = f"# {title}"
        for identity, paragraph in rows:
            places[identity] = (title, len(text) + 2, paragraph)
            text += f"\n\n{paragraph}"
        documents[title] = parse(text.encode(), media_type="text/markdown")
    relevant = {}
    for line in (folder / "qrels.tsv").read_text().splitlines():
        query, document, score = line.split("\t")[:3]
        if score.isdigit() and int(score):
            relevant[query] = document
    questions = []
    for line in (folder / "queries.jsonl").read_text().splitlines():
        row = json.loads(line)
        title, start, paragraph = places[relevant[row["id"]]]
        answer = row["answers"][0]
        at = paragraph.find(answer)
        if at >= 0:
            questions.append(Question(row["text"], title, (answer,), (start + at, start + at + len(answer))))
    return documents, questions


def pages() -> tuple[dict[str, Parsed], list[Question]]:
    """The newest version of each page, and the questions that it answers."""
    folder = SHARED / "versions"
    documents = {}
    for path in sorted(each for each in folder.iterdir() if each.is_dir()):
        newest = max(path.glob("*.txt"), key=lambda each: int(each.stem))
        kind = "text/x-rst" if path.name.startswith("celery") else "text/markdown"
        documents[path.name] = parse(newest.read_bytes(), media_type=kind)
    questions = []
    for line in (folder / "questions.jsonl").read_text().splitlines():
        row = json.loads(line)
        answer = row["answers"][-1]["answer"]
        if answer and row["doc"] in documents:
            questions.append(Question(row["question"], row["doc"], (str(answer),), None))
    return documents, questions


def evaluate(documents: dict[str, Parsed], questions: Sequence[Question]) -> Iterator[tuple[str, ...]]:
    embedder = get_embedder("local", cache_dir=Path(__file__).resolve().parents[1] / ".data" / "models")
    rng = np.random.default_rng(7)
    asked = [questions[at] for at in rng.permutation(len(questions))[:QUESTIONS]]
    vectors = embedder.embed([question.text for question in asked])
    for strategy, size, overlap in GRID:
        started = perf_counter()
        chunks = []
        for name, parsed in documents.items():
            spans = chunk(
                parsed.text, parsed.blocks, strategy=strategy, max_tokens=size, overlap_tokens=overlap,
                count=embedder.count, embed=embedder.embed,
            )  # fmt: skip
            chunks += [(name, span, parsed.text[span.start : span.end]) for span in spans]
        cut = perf_counter() - started
        scores = vectors @ embedder.embed([text for _, _, text in chunks]).T
        found = dict.fromkeys(BUDGETS, 0)
        reciprocal = 0.0
        for question, row in zip(asked, scores, strict=True):
            spent = 0
            for rank, at in enumerate(np.argsort(-row)[:60], start=1):
                name, span, text = chunks[at]
                spent += span.tokens
                if name == question.document and _holds(question, span.start, span.end, text):
                    reciprocal += 1 / rank
                    for budget in BUDGETS:
                        found[budget] += spent <= budget
                    break
                if spent > max(BUDGETS):
                    break
        shares = [f"{found[budget] / len(asked):.3f}" for budget in BUDGETS]
        mean = sum(span.tokens for _, span, _ in chunks) / len(chunks)
        yield (
            f"{strategy} {size}/{overlap}", str(len(chunks)), f"{mean:.0f}", *shares, f"{reciprocal / len(asked):.3f}",
            f"{cut:.1f}",
        )  # fmt: skip


def _holds(question: Question, start: int, end: int, text: str) -> bool:
    if question.span is not None:
        return start <= question.span[0] and question.span[1] <= end
    return any(answer.casefold() in text.casefold() for answer in question.answers)


def main() -> None:
    for name, corpus in (("wikipedia", wikipedia), ("pages", pages)):
        if name not in (sys.argv[1:] or (name,)):
            continue
        documents, questions = corpus()
        print(f"\n{name}: {len(documents)} documents, {min(QUESTIONS, len(questions))} questions\n")
        print("| strategy max/overlap | chunks | tokens, mean | in 512 tokens | in 1,024 | MRR | s to cut |")
        print("|---|---|---|---|---|---|---|")
        for row in evaluate(documents, questions):
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
