"""A random workload and its judge: writers and readers of two tenants against a running server, while workers die.

Every text names its tenant, its document and its version, so that a reader can tell what it reads. `Ledger` keeps what
was sent when and what was seen when; `Judge` says what a read may show, given that. All times are of this machine's
clock, which is the database's too.

What is proved of each read: its hits stand in the text of their version, all of one version per document and all of its
chunks (I1); versions never go back (I2); what was live stays found until something newer or a delete (I5); nobody reads
another tenant's (I7); what has been deleted before is gone, what has been erased is also gone from the past (I8);
`fresh` and `stale` tell the truth; strong reads and named versions are there or told to be stale; the past holds what
had been published by then, and nothing that began later.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

PARTS = 6


def text_of(tenant: str, name: str, version: int) -> str:
    """A part changes with every third version, each with another one; the first line, whose length differs, always."""
    parts = [f"Harbour {tenant} {name}, version {version}{'!' * (version % 7)}"]
    for part in range(PARTS):
        stamp = max(1, version - (version + part) % 3)
        dice = random.Random(f"{tenant}/{name}/{part}/{stamp}")
        words = " ".join(f"w{dice.randrange(16**6):06x}" for _ in range(24))
        parts.append(f"Harbour {tenant} {name} part {part} of {stamp}: {words}.")
    return "\n\n".join(parts)


class Violation(AssertionError):
    """What was promised and did not hold, with the history of the document."""


@dataclass(slots=True)
class Write:
    """kind: put, broken (a text that no parser reads), delete or erase. content: the version whose text is sent."""

    kind: str
    version: int
    began: float
    content: int = 0
    ended: float | None = None
    status: int = 0
    live: bool = False

    @property
    def accepted(self) -> bool:
        return self.ended is not None and self.status < 300

    def __str__(self) -> str:
        took = f"{self.began:.4f} to " + ("..." if self.ended is None else f"{self.ended:.4f}")
        return f"{took} {self.kind} {self.version} (text {self.content}) -> {self.status}{' live' if self.live else ''}"


@dataclass(slots=True)
class Seen:
    """A document's version, live in a read of the present, or by a write-through's word."""

    version: int
    ended: float


@dataclass(slots=True)
class History:
    tenant: str
    name: str
    id: str = ""
    writes: list[Write] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    next: int = 1

    def seen_before(self, moment: float) -> int:
        return max((each.version for each in self.seen if each.ended < moment), default=0)

    def removed(self, *kinds: str, before: float) -> int:
        """The highest version of a delete, or an erasure, that had been answered before."""
        return max((w.version for w in self.writes if w.kind in kinds and w.accepted and w.ended < before), default=0)  # type: ignore[operator]

    def may_be_removed(self, *kinds: str, above: int, before: float) -> bool:
        """Has a removal of that version or a higher one begun before? (It may not have been answered.)"""
        return any(
            w.kind in kinds and w.began < before and w.version >= above and (w.ended is None or w.accepted)
            for w in self.writes
        )

    def newest_accepted(self, *, before: float, readable: bool) -> int:
        kinds = ("put",) if readable else ("put", "broken")
        return max((w.version for w in self.writes if w.kind in kinds and w.accepted and w.ended < before), default=0)  # type: ignore[operator]


class Ledger:
    """All histories. Lists only grow, and an entry is in its list before it is sent: readers need no lock."""

    def __init__(self, tenants: list[str], documents: int) -> None:
        self.lock = threading.Lock()
        self.documents = {
            tenant: {f"doc{number:02}": History(tenant, f"doc{number:02}") for number in range(documents)}
            for tenant in tenants
        }
        self.by_id: dict[str, History] = {}
        self.counts: Counter[str] = Counter()
        self.violation: Violation | None = None

    def fail(self, history: History | None, message: str) -> None:
        lines = [message]
        if history is not None:
            lines.append(f"history of {history.tenant}/{history.name} ({history.id}):")
            lines += [f"  {write}" for write in history.writes[-30:]]
            lines += [f"  {each.ended:.4f} seen live in version {each.version}" for each in history.seen[-10:]]
        with self.lock:
            self.violation = self.violation or Violation("\n".join(lines))
        raise self.violation

    @contextmanager
    def writing(self, history: History, kind: str, version: int, content: int = 0) -> Iterator[Write]:
        write = Write(kind, version, time.time(), content)
        history.writes.append(write)
        yield write
        write.ended = time.time()

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1


@dataclass(slots=True)
class Shown:
    """Of one document what a read shows: its version, and the places of its hits."""

    version: int
    fresh: bool
    places: set[tuple[int, int]] = field(default_factory=set)


class Judge:
    """What a read by a tenant may show. `began` and `ended`: its own times."""

    def __init__(self, ledger: Ledger, tenant: str) -> None:
        self.ledger, self.tenant = ledger, tenant

    def shown(self, body: dict[str, Any], asked: str) -> dict[str, Shown]:
        """By name; checks what can be told without the history of writes' times."""
        found: dict[str, Shown] = {}
        for hit in body["results"]:
            history = self.ledger.by_id.get(hit["document_id"])
            if history is None or history.tenant != self.tenant:
                self.ledger.fail(history, f"I7: {self.tenant} reads {hit['text'][:60]!r} ({asked})")
                continue
            contents = {w.content for w in history.writes if w.kind == "put" and w.version == hit["version"]}
            texts = [text_of(self.tenant, history.name, content) for content in contents]
            if not any(text[hit["start"] : hit["end"]] == hit["text"] for text in texts):
                self.ledger.fail(history, f"I1: {hit['text'][:70]!r} is no text of version {hit['version']} ({asked})")
            shown = found.setdefault(history.name, Shown(hit["version"], hit["fresh"]))
            if shown.version != hit["version"]:
                self.ledger.fail(history, f"I1: versions {shown.version} and {hit['version']} in one result ({asked})")
            shown.places.add((hit["start"], hit["end"]))
        for name, shown in found.items():
            history = self.ledger.documents[self.tenant][name]
            texts = [
                text_of(self.tenant, name, w.content)
                for w in history.writes
                if w.kind == "put" and w.version == shown.version
            ]
            if not any(_covers(text, shown.places) for text in texts):
                self.ledger.fail(history, f"I1: version {shown.version} is not whole: {sorted(shown.places)} ({asked})")
        return found

    def present(self, body: dict[str, Any], asked: str, began: float, ended: float, needed: dict[str, int]) -> None:
        """needed: versions that must be there or told to be stale, by name."""
        found = self.shown(body, asked)
        stale = {each["document_id"]: each["version"] for each in body["stale"]}
        for name, history in self.ledger.documents[self.tenant].items():
            shown = found.get(name)
            known = history.seen_before(began)
            if shown is None:
                if known and not history.may_be_removed("delete", "erase", above=known, before=ended):
                    self.ledger.fail(history, f"I5: version {known} was live, now there is nothing ({asked})")
            else:
                self._one(history, shown, known, stale, asked, began, ended)
            self._enough(history, shown, needed.get(name, 0), stale, asked, ended)
        for name, shown in found.items():
            self.ledger.documents[self.tenant][name].seen.append(Seen(shown.version, ended))

    def _one(
        self, history: History, shown: Shown, known: int, stale: dict[str, int], asked: str, began: float, ended: float
    ) -> None:
        if shown.version < known:
            self.ledger.fail(history, f"I2: version {shown.version} after {known} ({asked} at {began:.4f})")
        gone = history.removed("delete", "erase", before=began)
        if shown.version <= gone:
            self.ledger.fail(
                history, f"I8: version {shown.version} after the delete of {gone} ({asked} at {began:.4f})"
            )
        newest = history.newest_accepted(before=began, readable=False)
        if shown.fresh and newest > shown.version:
            self.ledger.fail(history, f"fresh: version {shown.version}, though {newest} was accepted ({asked})")
        if not shown.fresh:
            if history.id not in stale:
                self.ledger.fail(history, f"stale does not list it, though its hits are not fresh ({asked})")
            if not any(w.version > shown.version and w.began < ended for w in history.writes):
                self.ledger.fail(history, f"fresh: false, though nothing is newer than {shown.version} ({asked})")

    def _enough(
        self, history: History, shown: Shown | None, needed: int, stale: dict[str, int], asked: str, ended: float
    ) -> None:
        if not needed:
            return
        if shown is not None and shown.version >= needed:
            self.ledger.count("needed: read")
        elif history.may_be_removed("delete", "erase", above=needed, before=ended):
            self.ledger.count("needed: deleted meanwhile")
        elif stale.get(history.id, 0) >= needed:
            self.ledger.count("needed: told to be stale")
        else:
            has = shown.version if shown else None
            self.ledger.fail(history, f"{asked}: {needed} was needed, {has} is shown, and stale does not tell")

    def past(self, body: dict[str, Any], asked: str, then: float, began: float, ended: float) -> dict[str, Shown]:
        found = self.shown(body, asked)
        for name, history in self.ledger.documents[self.tenant].items():
            shown = found.get(name)
            known = history.seen_before(then)
            if shown is None:
                removed = history.may_be_removed("delete", "erase", above=known, before=then)
                if known and not removed and not history.may_be_removed("erase", above=known, before=ended):
                    self.ledger.fail(history, f"I5: version {known} was live before {then:.4f}; nothing is ({asked})")
                continue
            if shown.version < known:
                self.ledger.fail(history, f"past: version {shown.version} at {then:.4f}, after {known} ({asked})")
            if not any(w.version == shown.version and w.began < then for w in history.writes):
                self.ledger.fail(history, f"past: version {shown.version} at {then:.4f}, before it was sent ({asked})")
            gone = history.removed("delete", "erase", before=then)
            if shown.version <= gone:
                self.ledger.fail(history, f"I8: version {shown.version} at {then:.4f}, after the delete of {gone}")
            erased = history.removed("erase", before=began)
            if shown.version <= erased:
                self.ledger.fail(history, f"I8: version {shown.version} of the past, after the erasure of {erased}")
        return found


def _covers(text: str, places: set[tuple[int, int]]) -> bool:
    """Is every character of the text but white space in one of the places?"""
    left = list(text)
    for start, end in places:
        left[start:end] = " " * (end - start)
    return not "".join(left).strip()


def moment(seconds: float) -> str:
    """As the API takes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
