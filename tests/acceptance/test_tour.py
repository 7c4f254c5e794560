"""The README's tour, executed as a newcomer would: `manage.py up` on an empty directory, then its blocks in bash.

The real embedding model, the real sample, no language model. One start serves all tests of this module.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import ROOT, free_port, wait_for

SAMPLE = "ragsite-docs"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OUTPUT = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ROUNDED = "dense|lexical|fused"
_MEMBER = re.compile(rf'"(?!{_ROUNDED})\w+": (?:"[^"]*"|-?\d+(?:\.\d+)?(?=\W)|true|false)')
_CUT = "--- next block ---"
_KEY = re.compile(r"API key +(rs_\S+)")
_OURS = ("DATABASE_", "REDIS_", "EMBEDDING_", "LLM_", "RAGSITE_", "DJANGO_", "JOB_", "SWEEP_", "SECRET_")


class Up:
    """`manage.py up` in the foreground, on a port of its own, in an environment without this test run's settings."""

    def __init__(self, data: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data.with_name(f"{data.name}-{self.port}.log")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        environment["EMBEDDING_CACHE_DIR"] = str(ROOT / ".data" / "models")  # converted at most once
        command = [sys.executable, "manage.py", "up", "--port", str(self.port), "--data-dir", str(data)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def said(self) -> str:
        return self.log.read_text()

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.said()
            try:
                answered = httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
            except httpx.HTTPError:
                return False
            return answered and "Ctrl-C stops everything" in self.said()

        wait_for(ready, seconds=180, what=f"manage.py up; it said:\n{self.said()}")

    def interrupt(self) -> int:
        """Ctrl-C, once; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def end(self) -> None:
        """Whatever state it is in. Its servers and children end with it."""
        try:
            self.interrupt()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Tour:
    """A finished tour: what each block printed, and how to go on asking."""

    up: Up
    data: Path
    key: str
    printed: list[str]

    def client(self, url: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=url or self.up.url, headers=headers, timeout=60)

    def objects(self, block: int) -> list[Any]:
        """The JSON values that a block printed, in order; other lines are left out."""
        return list(_json_values(self.printed[block]))


def blocks() -> list[str]:
    """The tour's shell blocks."""
    return _BLOCK.findall(section())


def section() -> str:
    """The README's tour. Its shell blocks contain headings of their own, so the next section is named."""
    after = (ROOT / "README.md").read_text().split("\n## A five-minute tour\n")[1]
    return after.split("\n## Pointing it at real servers\n")[0]


def number_of(text: str) -> int:
    """The place of the one block that contains `text`."""
    found = [number for number, block in enumerate(blocks()) if text in block]
    assert len(found) == 1, f"{len(found)} blocks of the tour contain {text!r}"
    return found[0]


def sample_is_live(client: httpx.Client) -> bool:
    found = client.get(f"/api/v1/collections/{SAMPLE}").json()
    return found["pending"] == 0 and found["documents"] > 0


def _json_values(text: str) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(), 0
    while (start := text.find("{", at)) >= 0:
        value, at = decoder.raw_decode(text, start)
        yield value


@pytest.fixture(scope="module")
def tour() -> Iterator[Tour]:
    data = Path(tempfile.mkdtemp(prefix="ragsite-tour-"))
    up = Up(data)
    try:
        up.wait_until_ready()
        shown = _KEY.search(up.said())
        assert shown is not None, up.said()
        first = Tour(up, data, shown.group(1), [])
        with first.client() as client:
            wait_for(lambda: sample_is_live(client), seconds=120, what="the sample")
        yield Tour(up, data, first.key, run_tour(up.url, first.key))
    finally:
        up.end()
        shutil.rmtree(data, ignore_errors=True)
        for log in data.parent.glob(f"{data.name}-*.log"):
            log.unlink()


def run_tour(url: str, key: str) -> list[str]:
    """Paste the blocks one after another into one bash; what each printed. Only URL and KEY are set to ours."""
    pasted = []
    for block in blocks():
        block = re.sub(r"^URL=.*$", f"URL={url}", block, flags=re.MULTILINE)
        pasted.append(re.sub(r"^KEY=.*$", f"KEY={key}", block, flags=re.MULTILINE))
    with tempfile.TemporaryDirectory(prefix="ragsite-tour-home-") as home:
        script = f"\necho; echo '{_CUT}'\n".join(pasted).replace("/tmp/", f"{home}/")
        done = subprocess.run(["bash"], input=script, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout.split(_CUT)


def test_it_says_what_a_newcomer_needs(tour: Tour) -> None:
    said = tour.up.said()
    assert f"ragsite is ready:  {tour.up.url}/" in said
    assert len(_KEY.findall(said)) == 1
    assert re.search(r"admin login +admin / \S{12,}", said)
    assert f"sample collection '{SAMPLE}'" in said


def test_the_product_answers_about_itself_from_the_right_passages(tour: Tour) -> None:
    answers = tour.objects(number_of("for victim in"))
    page = (ROOT / "docs" / "howto" / "operate.md").read_text()
    headings = ("What happens when a worker dies?", "What happens when Redis is lost?")
    for answer, heading in zip(answers, headings, strict=True):
        assert not answer["abstained"]
        cited = answer["citations"][0]
        assert cited["source_uri"] == "docs/howto/operate.md"
        assert cited["quote"] in page.split(f"## {heading}\n")[1].split("\n## ")[0]
        assert cited["sha256"] == hashlib.sha256(cited["quote"].encode()).hexdigest()
    assert "finished by another worker" in answers[0]["citations"][0]["quote"]
    assert answers[0]["answer"].startswith("When a worker dies, its jobs are finished by another worker. [1]")
    assert "nothing is lost" in answers[1]["citations"][0]["quote"]


@pytest.mark.parametrize(
    ("question", "page", "words"),
    [
        ("Where is the data kept?", "docs/howto/operate.md", "data directory"),
        ("Which port does ragsite use?", "docs/howto/operate.md", "8000"),
        ("What happens when Redis is lost?", "docs/howto/operate.md", "nothing is lost"),
        ("How do I point it at a real Postgres?", "docs/howto/point-at-real-servers.md", "DATABASE_URL"),
        ("How do I back up?", "docs/howto/back-up-and-restore.md", "pg_dump"),
    ],
)
def test_everyday_questions_are_answered_from_their_page(tour: Tour, question: str, page: str, words: str) -> None:
    with tour.client() as client:
        answer = client.post("/api/v1/answers", json={"question": question, "collections": [SAMPLE]}).json()
    quoted = [cited["quote"] for cited in answer["citations"] if cited["source_uri"] == page]
    assert any(words in quote for quote in quoted), answer


def test_what_the_documentation_does_not_say_is_not_answered(tour: Tour) -> None:
    asked = {"question": "What is the capital of France?", "collections": [SAMPLE]}
    with tour.client() as client:
        answer = client.post("/api/v1/answers", json=asked).json()
    assert answer["abstained"]
    assert answer["citations"] == []


def test_a_written_document_is_found_at_once(tour: Tour) -> None:
    made, added = tour.objects(number_of('"slug": "library"'))
    assert made["slug"] == "library"
    assert (added["version"], added["live_version"], added["state"]) == (1, 1, "live")
    [uploaded] = tour.objects(number_of("file=@"))
    assert (uploaded["source_uri"], uploaded["state"]) == ("lending-rules.md", "live")
    [found] = tour.objects(number_of("/api/v1/search"))
    [hit] = found["results"]
    assert hit["document_id"] == uploaded["id"]
    assert "twenty cents a day" in hit["text"]
    assert hit["heading_path"] == ["Lending rules", "Fines"]


def test_after_an_update_the_old_text_is_in_no_answer(tour: Tour) -> None:
    [before] = tour.objects(number_of("tee /tmp/ragsite-answer.json"))
    assert before["answer"] == "The library opens at nine and closes at six. [1]"
    assert before["citations"][0]["version"] == 1
    changed = number_of('"version": 2')
    [updated] = tour.objects(changed)
    assert (updated["version"], updated["live_version"]) == (2, 2)
    assert tour.printed[changed].strip().splitlines()[-1] == "The library opens at nine and closes at eight. [1]"
    assert "six" not in tour.printed[changed]


def test_a_late_older_write_is_refused(tour: Tour) -> None:
    [refused] = tour.objects(number_of("closed for good"))
    assert (refused["status"], refused["code"], refused["current_version"]) == (409, "stale_version", 2)


def test_a_citation_proves_itself(tour: Tour) -> None:
    block = number_of("cited() {")
    span, verdict = tour.objects(block)
    [claimed] = re.findall(r"^[0-9a-f]{64}$", tour.printed[block], re.MULTILINE)
    assert claimed == span["sha256"] == hashlib.sha256(span["text"].encode()).hexdigest()
    assert "closes at eight" in span["text"]
    assert verdict == {"verified": True, "citations": [{"marker": 1, "verified": True}]}


def test_chat_answers_with_annotations_at_its_markers(tour: Tour) -> None:
    [completion] = tour.objects(number_of("/v1/chat/completions"))
    message = completion["choices"][0]["message"]
    assert "three weeks" in message["content"]
    [annotation] = message["annotations"]
    place = annotation["url_citation"]
    assert message["content"][place["start_index"] : place["end_index"]] == "[1]"
    assert place["url"] == "lending-rules.md"


def test_what_is_deleted_is_gone(tour: Tour) -> None:
    block = number_of("rag DELETE")
    assert re.findall(r"^\d{3}$", tour.printed[block], re.MULTILINE) == ["204", "204"]
    [verdict] = tour.objects(block)
    assert verdict["verified"] is False
    assert verdict["citations"][0]["reason"] == "document_deleted"
    with tour.client() as client:
        assert client.get("/api/v1/collections/library").status_code == 404
        found = client.post("/api/v1/search", json={"query": "When does the library close?"}).json()
    assert all("library opens" not in hit["text"] for hit in found["results"] if hit["collection"] != SAMPLE)


def test_the_tour_shows_what_it_prints(tour: Tour) -> None:
    """Every JSON member with a simple value that the README shows after a block is in what the block printed."""
    parts = re.split(r"^```sh\n", section(), flags=re.MULTILINE)[1:]
    checked = 0
    for part, printed in zip(parts, tour.printed, strict=True):
        flat = " ".join(printed.split())
        for output in _OUTPUT.findall(part):
            for member in _MEMBER.findall(output):
                for shown in re.split(r"\s*\.\.\.\s*", member):  # what stands between marks of omission
                    assert shown.removesuffix(': "') in flat, f"{shown} is not in {flat[:3000]}"
                checked += 1
    assert checked >= 40


def test_ctrl_c_ends_it_and_a_second_start_knows_everything(tour: Tour) -> None:
    """Last, because it stops what the other tests ask."""
    assert tour.up.interrupt() == 0, tour.up.said()
    again = Up(tour.data)
    try:
        again.wait_until_ready()
        assert not _KEY.search(again.said()), again.said()
        assert "admin login" not in again.said()
        asked = {"question": "What happens when a worker dies?", "collections": [SAMPLE]}
        with tour.client(again.url) as client:
            answer = client.post("/api/v1/answers", json=asked).json()
        assert answer["citations"][0]["source_uri"] == "docs/howto/operate.md"
        assert again.interrupt() == 0
    finally:
        again.end()
