"""Reads labelled sets in BEIR's layout: a folder with corpus.jsonl, queries.jsonl and qrels.

    corpus.jsonl    {"_id" or "id", "title"?, "text"}
    queries.jsonl   {"_id" or "id", "text", "answers"?, "answer_start"?, "lang"?}
    qrels.tsv       query, document, grade; tabs between, with or without a header (or qrels/test.tsv)
    META.json       {"lang"?}; not needed

`answer_start` is where the first answer stands in the document's `text`. A query without anything relevant is left out.
A set whose queries have languages is one set for each: its documents are those judged for its queries, and those judged
for none.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from apps.documents.parsing.normalise import normalise

from .types import LabelledSet, Page, Question

Grades = dict[str, dict[str, int]]


def read(folder: Path) -> list[LabelledSet]:
    """The set of a folder, or one for each of its languages. Raises ValueError that names the file and line."""
    pages = {page.id: page for page in _pages(folder)}
    grades = _grades(folder)
    home = _language(_meta(folder).get("lang", ""))
    asked: dict[str, list[Question]] = {}
    judged: dict[str, set[str]] = {}
    for query in _lines(folder / "queries.jsonl"):
        language = _language(query.get("lang", home))
        labels = grades.get(_id(query), {})
        judged.setdefault(language, set()).update(labels)
        if any(grade > 0 for grade in labels.values()):
            asked.setdefault(language, []).append(_question(query, labels, pages))
    if not asked:
        raise ValueError(f"{folder}: no query has a relevant document")
    by_any = set().union(*judged.values())
    return [
        LabelledSet(
            name=folder.resolve().name,
            language=language,
            pages=[page for page in pages.values() if page.id in judged[language] or page.id not in by_any]
            if len(judged) > 1
            else list(pages.values()),
            questions=questions,
        )
        for language, questions in asked.items()
    ]


def sample(questions: list[Question], *, size: int, seed: int) -> list[Question]:
    """At most `size` of them, the same ones for the same seed, in their order."""
    if size >= len(questions):
        return questions
    chosen = random.Random(seed).sample(range(len(questions)), size)
    return [questions[at] for at in sorted(chosen)]


def _question(query: dict[str, Any], labels: dict[str, int], pages: Mapping[str, Page]) -> Question:
    answers = tuple(answer for answer in query.get("answers", ()) if answer.strip())
    return Question(
        id=_id(query),
        text=query["text"],
        relevant=labels,
        answers=answers,
        span=_span(query, answers, labels, pages),
    )


def _span(
    query: dict[str, Any], answers: tuple[str, ...], labels: dict[str, int], pages: Mapping[str, Page]
) -> tuple[str, int, int] | None:
    """Where the first answer stands in the one relevant document, as its text will be stored. Normalising may move it
    a little: it is the occurrence nearest to where it should be."""
    relevant = [id for id, grade in labels.items() if grade > 0]
    if "answer_start" not in query or not answers or len(relevant) != 1 or relevant[0] not in pages:
        return None
    page = pages[relevant[0]]
    content, answer = normalise(page.content), normalise(answers[0])
    near = len(page.content) - len(page.text) + query["answer_start"]
    found, at = [], content.find(answer)
    while at >= 0:
        found.append(at)
        at = content.find(answer, at + 1)
    start = min(found, key=lambda at: abs(at - near), default=None)
    return None if start is None else (page.id, start, start + len(answer))


def _pages(folder: Path) -> Iterator[Page]:
    for line in _lines(folder / "corpus.jsonl"):
        if not (line.get("title") or "").strip() and not line["text"].strip():
            continue  # some sets have documents without any text, which cannot be found
        yield Page(_id(line), (line.get("title") or "").strip(), line["text"])


def _grades(folder: Path) -> Grades:
    path = folder / "qrels.tsv"
    path = path if path.exists() else folder / "qrels" / "test.tsv"
    grades: Grades = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
            try:
                query, document, grade = row
                grades.setdefault(query, {})[document] = int(grade)
            except ValueError:
                if number > 1:  # the first line may be a header
                    raise ValueError(f"{path}, line {number}: a query, a document and a whole number are expected")
    return grades


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
                _id(found), found["text"].strip()
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ValueError(f"{path}, line {number}: an object with id and text is expected") from None
            yield found


def _id(line: dict[str, Any]) -> str:
    return str(line["_id"] if "_id" in line else line["id"])


def _meta(folder: Path) -> dict[str, Any]:
    path = folder / "META.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _language(tag: str) -> str:
    """The language of a tag such as zh-TW."""
    return tag.partition("-")[0].lower()
