"""Labelled sets as their files have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apps.documents.parsing.normalise import normalise
from apps.evaluation import sets
from apps.evaluation.corpus import slug_for

CORPUS = [
    {"_id": "a", "title": "Bees", "text": "Bees dance. A queen lives for years."},
    {"id": "b", "text": "Wasps build with paper."},
]


def folder(
    at: Path, *, corpus: Any = CORPUS, queries: Any, qrels: str, meta: Any = None, name: str = "qrels.tsv"
) -> Path:
    for file, lines in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (at / file).write_text("\n".join(json.dumps(line) for line in lines))
    (at / name).parent.mkdir(exist_ok=True)
    (at / name).write_text(qrels)
    if meta is not None:
        (at / "META.json").write_text(json.dumps(meta))
    return at


QUERIES = [{"_id": "1", "text": "How old is a queen?"}, {"id": 2, "text": "paper"}, {"id": "3", "text": "nobody knows"}]


@pytest.mark.parametrize("header", ["", "query-id\tcorpus-id\tscore\n"])
@pytest.mark.parametrize("name", ["qrels.tsv", "qrels/test.tsv"])
def test_ids_labels_and_headers_as_sets_have_them(tmp_path: Path, header: str, name: str) -> None:
    found = sets.read(
        folder(tmp_path, queries=QUERIES, qrels=f"{header}1\ta\t2\n1\tb\t0\n2\tb\t1\n3\ta\t0\n", name=name)
    )
    assert len(found) == 1 and found[0].language == "" and found[0].name == tmp_path.name
    assert [(page.id, page.content) for page in found[0].pages] == [
        ("a", "Bees\n\nBees dance. A queen lives for years."),
        ("b", "Wasps build with paper."),
    ]
    asked = {question.id: dict(question.relevant) for question in found[0].questions}
    assert asked == {"1": {"a": 2, "b": 0}, "2": {"b": 1}}, "a query without anything relevant is left out"


def test_each_language_is_a_set_of_its_own(tmp_path: Path) -> None:
    corpus = [{"id": name, "text": name} for name in ("en-1", "de-1", "en-2")]
    queries = [{"id": "e", "text": "one", "lang": "en"}, {"id": "d", "text": "eins", "lang": "de"}]
    qrels = "e\ten-1\t1\nd\tde-1\t1\n"
    found = sets.read(folder(tmp_path, corpus=corpus, queries=queries, qrels=qrels, meta={"lang": "ignored"}))
    assert {each.language: [page.id for page in each.pages] for each in found} == {
        "en": ["en-1", "en-2"],
        "de": ["de-1", "en-2"],
    }, "what is judged for no query may be found by any"
    assert [slug_for(each, "mine") for each in found] == ["mine-en", "mine-de"]


def test_a_set_may_say_its_language(tmp_path: Path) -> None:
    found = sets.read(folder(tmp_path, queries=QUERIES, qrels="1\ta\t1\n", meta={"lang": "zh-TW"}))
    assert found[0].language == "zh"


def test_the_span_is_where_the_answer_stands_in_the_stored_text(tmp_path: Path) -> None:
    text = "Years went by.\r\nA queen\x00 lives for years; drones do not live for years."
    corpus = [{"id": "a", "title": "On years", "text": text}]
    queries = [{"id": "1", "text": "?", "answers": ["years", "many"], "answer_start": text.index("years;")}]
    found = sets.read(folder(tmp_path, corpus=corpus, queries=queries, qrels="1\ta\t1\n"))[0]
    assert found.questions[0].answers == ("years", "many") and found.questions[0].span is not None
    page, start, end = found.questions[0].span
    stored = normalise(found.pages[0].content)
    assert page == "a" and stored[start:end] == "years" and stored[end] == ";"


def test_an_answer_that_is_not_there_has_no_span(tmp_path: Path) -> None:
    queries = [{"id": "1", "text": "?", "answers": ["a moth"], "answer_start": 3}]
    assert sets.read(folder(tmp_path, queries=queries, qrels="1\ta\t1\n"))[0].questions[0].span is None


@pytest.mark.parametrize(
    ("qrels", "queries", "told"),
    [
        ("1\ta\t1\n2\tb\n", QUERIES, "line 2"),
        ("1\ta\t1\n2\tb\tgood\n", QUERIES, "line 2"),
        ("1\ta\t1\n", [{"id": "1"}], "queries.jsonl, line 1"),
        ("1\ta\t1\n", [{"text": "x"}], "queries.jsonl, line 1"),
        ("1\ta\t0\n", QUERIES, "no query has a relevant document"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, qrels: str, queries: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        sets.read(folder(tmp_path, queries=queries, qrels=qrels))


def test_a_sample_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    queries = [{"id": str(number), "text": "q"} for number in range(50)]
    qrels = "".join(f"{number}\ta\t1\n" for number in range(50))
    questions = sets.read(folder(tmp_path, queries=queries, qrels=qrels))[0].questions
    first = sets.sample(questions, size=10, seed=1)
    assert len({question.id for question in first}) == 10 and first == sets.sample(questions, size=10, seed=1)
    assert first != sets.sample(questions, size=10, seed=2)
    assert sets.sample(questions, size=50, seed=1) == questions
