"""Texts to measure with: real passages where the question sets are at hand, generated prose otherwise."""

from __future__ import annotations

import json
import random
from pathlib import Path

QUESTIONS = Path(__file__).resolve().parents[2] / "shared" / "data" / "qa" / "squadshifts_new_wiki"
WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or "
    "had an they which one you were all her she there would their we him been has when who will no "
    "more if out so up said what its about than into them can only other time new some could these "
    "two may first then do any like my now over such our man river engine harbour treaty season "
    "council market village battle student theory island record station museum "
).split()


def passages(count: int) -> list[str]:
    """`count` passages of a hundred words or so."""
    found: list[str] = []
    corpus = QUESTIONS / "corpus.jsonl"
    if corpus.exists():
        found = [json.loads(line)["text"] for line in corpus.open()][:count]
    dice = random.Random(7)
    while len(found) < count:
        found.append(" ".join(dice.choices(WORDS, k=110)).capitalize() + ".")
    return found


def queries(count: int) -> list[str]:
    """`count` distinct questions."""
    path = QUESTIONS / "queries.jsonl"
    if path.exists():
        return [json.loads(line)["text"] for line in path.open()][:count]
    dice = random.Random(8)
    return [" ".join(dice.choices(WORDS, k=8)) + "?" for _ in range(count)]
