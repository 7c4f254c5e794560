"""Invariants I1, I2, I5, I7 and I8 under a random workload, with worker processes killed and paused meanwhile.

`make torture` runs it over ten thousand operations; TORTURE_OPERATIONS and TORTURE_SEED choose. What is judged is told
by tests/support/torture.py.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from apps.access import keys, tenancy
from apps.access.models import Tenant
from apps.documents import erasure
from apps.documents.models import IngestionJob
from tests.conftest import DATA, make_collection
from tests.support.processes import Process, Server, wait_for, worker
from tests.support.torture import History, Judge, Ledger, Seen, Violation, Write, moment, text_of

OPERATIONS = int(os.environ.get("TORTURE_OPERATIONS", "400"))
SEED = int(os.environ.get("TORTURE_SEED", "1"))
DOCUMENTS, WRITERS, READERS = 10, 3, 3
ENVIRONMENT = {
    "JOB_LEASE_SECONDS": "2",
    "JOB_MAX_ATTEMPTS": "1000",  # a killed worker's job is no dead letter here
    "FRESH_MILLISECONDS": "1500",
    "FRESH_DOCUMENTS": "6",
    "SWEEP_SECONDS": "1",
}


class Client:
    """One thread's client of one tenant."""

    def __init__(self, server: Server, ledger: Ledger, tenant: Tenant, key: str) -> None:
        # Idle connections are given up before the server does: a request on one that is just being closed would fail.
        limits, headers = httpx.Limits(keepalive_expiry=1), {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=server.url, headers=headers, timeout=60, limits=limits)
        self.ledger, self.tenant = ledger, tenant.slug
        self.judge = Judge(ledger, tenant.slug)

    # --- writers

    def put(self, history: History, version: int, content: int, *, mode: str) -> None:
        text = text_of(self.tenant, history.name, content)
        with self.ledger.writing(history, "put", version, content) as write:
            answer = self._send(history, write, text=text, mode=mode)
        if answer.status_code == 201:
            write.live = True
            history.seen.append(Seen(answer.json()["live_version"], time.time()))
        self._guarded(history, write)

    def put_broken(self, history: History, version: int) -> None:
        with self.ledger.writing(history, "broken", version) as write:
            self._send(history, write, file=("broken.pdf", b"%PDF-1.7 broken", "application/pdf"))
        self._guarded(history, write)

    def delete(self, history: History, version: int, *, erase: bool) -> None:
        with self.ledger.writing(history, "erase" if erase else "delete", version) as write:
            path = f"/api/v1/documents/{history.id}"
            write.status = self.http.delete(path, params={"version": version, "erase": str(erase).lower()}).status_code
        self._guarded(history, write)

    def _send(self, history: History, write: Write, file: Any = None, **fields: Any) -> httpx.Response:
        body = {"collection": "docs", "source_uri": history.name, "version": write.version} | fields
        sent = {"json": body} if file is None else {"data": body, "files": {"file": file}}
        answer = self.http.post("/api/v1/documents", **sent)  # type: ignore[arg-type]
        write.status = answer.status_code
        if answer.status_code not in (200, 201, 202, 409, 422):
            self.ledger.fail(history, f"a write was answered with {answer.status_code}: {answer.text[:300]}")
        return answer

    def _guarded(self, history: History, write: Write) -> None:
        """I2: a number that is not above one taken before is refused; one above all others is taken."""
        others = [each for each in history.writes if each is not write]
        taken = max((w.version for w in others if w.accepted and (w.ended or 0) < write.began), default=0)
        if write.version <= taken and write.status != 409:
            self.ledger.fail(history, f"I2: {write.version} was taken after {taken}")
        highest = max((w.version for w in others if w.began < (write.ended or 0)), default=0)
        if write.version > highest and write.status == 409:
            self.ledger.fail(history, f"{write.version} was refused, though no other is as high")

    # --- readers

    def read(self, consistency: str, mode: str, named: dict[str, int]) -> None:
        documents = self.ledger.documents[self.tenant]
        began = time.time()
        needed = dict(named)
        if consistency == "strong":
            for name, history in documents.items():
                newest = history.newest_accepted(before=began, readable=True)
                if newest > history.removed("delete", "erase", before=began):
                    needed[name] = max(newest, needed.get(name, 0))
        fields: dict[str, Any] = {"consistency": consistency, "mode": mode}
        if named:
            fields["min_versions"] = {documents[name].id: version for name, version in named.items()}
        body = self._search(fields)
        self.judge.present(body, f"{consistency} {mode} {named or ''}", began, time.time(), needed)

    def read_past(self, then: float, mode: str) -> dict[str, Any]:
        began = time.time()
        body = self._search({"as_of": moment(then), "mode": mode})
        shown = self.judge.past(body, f"as of {then:.4f} {mode}", then, began, time.time())
        return {name: (each.version, frozenset(each.places)) for name, each in shown.items()}

    def read_version(self, history: History, version: int) -> None:
        began = time.time()
        answer = self.http.post(
            "/api/v1/search",
            json={"query": "harbour", "k": 200, "filters": {"document_id": history.id, "version": version}},
        )
        if answer.status_code == 422:
            if not history.may_be_removed("erase", above=version, before=time.time()):
                self.ledger.fail(history, f"version {version} was live and is unknown: {answer.text[:200]}")
            return
        shown = self.judge.shown(answer.json(), f"version {version}")
        if {each.version for each in shown.values()} != {version}:
            self.ledger.fail(history, f"version {version} was asked for: {shown}")
        if history.removed("erase", before=began) >= version:
            self.ledger.fail(history, f"I8: version {version} is found after its erasure")

    def _search(self, fields: dict[str, Any]) -> dict[str, Any]:
        answer = self.http.post("/api/v1/search", json={"query": "harbour", "k": 200} | fields)
        if answer.status_code != 200:
            self.ledger.fail(None, f"a search was answered with {answer.status_code}: {answer.text[:300]} ({fields})")
        return answer.json()


Asked = dict[float, dict[str, Any] | None]  # what the past was, by time, when that had become old enough to stay so


def write_something(client: Client, dice: random.Random) -> None:
    history = dice.choice(list(client.ledger.documents[client.tenant].values()))
    with client.ledger.lock:
        version = history.next + dice.choice((0, 0, 0, 1, 2))
        history.next = version + 1
    what = dice.choices(
        ("back", "through", "again", "late", "broken", "delete", "erase"), weights=(40, 25, 8, 10, 7, 7, 3)
    )[0]
    if what in ("back", "through"):
        client.put(history, version, version, mode=f"write_{what}")
    elif what == "again":
        sent = [write for write in history.writes if write.kind == "put"]
        client.put(history, version, sent[-1].content if sent else version, mode="write_back")
    elif what == "late":
        older = max(1, version - dice.randrange(2, 6))
        if not any(write.version == older for write in history.writes):
            client.put(history, older, older, mode="write_back")
    elif what == "broken":
        client.put_broken(history, version)
    else:
        client.delete(history, version, erase=what == "erase")
    client.ledger.count(f"write: {what}")


def read_something(client: Client, dice: random.Random, asked: Asked, began: float) -> None:
    mode = dice.choice(("hybrid", "hybrid", "dense", "lexical"))
    documents = client.ledger.documents[client.tenant]
    what = dice.choices(
        ("eventual", "bounded", "strong", "named", "past", "past again", "version"), weights=(20, 20, 20, 12, 14, 7, 7)
    )[0]
    if what in ("eventual", "bounded", "strong"):
        client.read(what, mode, {})
    elif what == "named":
        name, history = dice.choice(list(documents.items()))
        accepted = history.newest_accepted(before=time.time(), readable=True)
        if accepted:
            client.read(dice.choice(("eventual", "bounded")), mode, {name: accepted})
    elif what == "past":
        then = dice.uniform(began, time.time())
        client.read_past(then, mode)
        asked[then] = None
    elif what == "past again":
        # What is old enough that no publish of then can still be under way is the same for ever, but for erasures.
        old = [then for then in asked if then < time.time() - 15]
        if old:
            _same_past(client, dice.choice(old), asked, mode)
    else:
        history = dice.choice(list(documents.values()))
        if history.seen:
            client.read_version(history, dice.choice(history.seen[-5:]).version)
    client.ledger.count(f"read: {what}")


def _same_past(client: Client, then: float, asked: Asked, mode: str) -> None:
    again = client.read_past(then, mode)
    before = asked[then] = asked[then] or again
    for name in before.keys() | again.keys():
        history = client.ledger.documents[client.tenant][name]
        erased = any(write.kind == "erase" for write in history.writes)
        if before.get(name) != again.get(name) and not erased:
            client.ledger.fail(history, f"the past has changed: {before.get(name)} to {again.get(name)} at {then:.4f}")


class Trouble:
    """Two workers that do everything, and beat; one worker after the other is killed, or sleeps for a while."""

    def __init__(self) -> None:
        self.number = 0
        self.beat = Process(DATA, "torture-beat", "celery", "-A", "ragsite", "beat", "--pidfile=", **ENVIRONMENT)
        self.workers = [self._worker(), self._worker()]

    def _worker(self) -> Process:
        self.number += 1
        return worker(DATA, "prepare", "embed", "default", name=f"torture{self.number}", **ENVIRONMENT)

    def make(self, dice: random.Random, ledger: Ledger, over: threading.Event) -> None:
        while not over.wait(dice.uniform(1, 5)):
            at = dice.randrange(len(self.workers))
            if dice.random() < 0.35:
                self.workers[at].kill()
                self.workers[at] = self._worker()
                ledger.count("worker killed")
            else:
                group = self.workers[at].process.pid
                os.killpg(group, signal.SIGSTOP)
                over.wait(dice.uniform(0.2, 4))
                os.killpg(group, signal.SIGCONT)
                ledger.count("worker paused")

    def end(self) -> None:
        for process in (self.beat, *self.workers):
            process.kill()


def test_what_is_promised_holds_whatever_happens(tenant: Tenant, other_tenant: Tenant) -> None:
    ledger = Ledger([tenant.slug, other_tenant.slug], DOCUMENTS)
    collections = [
        make_collection(each, consistency={"window_seconds": 1}, chunking={"max_tokens": 60})
        for each in (tenant, other_tenant)
    ]
    secrets = [
        keys.create_key(tenant_id=each.id, name="t", scopes=["read", "write"])[1] for each in (tenant, other_tenant)
    ]
    over, left = threading.Event(), iter(range(OPERATIONS))
    began = time.time()
    with Server(DATA, **ENVIRONMENT) as server:
        clients = lambda: [Client(server, ledger, *each) for each in zip((tenant, other_tenant), secrets, strict=True)]  # noqa: E731
        for client in clients():
            for history in ledger.documents[client.tenant].values():
                _first(client, history)
        trouble = Trouble()

        def run(number: int, act: Callable[..., None], *extra: Any) -> None:
            dice, mine = random.Random(SEED * 1_000 + number), clients()
            pasts: list[Asked] = [{}, {}]
            try:
                while not over.is_set():
                    with ledger.lock:
                        if next(left, None) is None:
                            return
                    at = dice.randrange(2)
                    act(mine[at], dice, *((pasts[at], began) if act is read_something else ()))
            except Violation:
                over.set()
            except Exception as error:
                ledger.violation = ledger.violation or Violation(f"{type(error).__name__}: {error}")
                over.set()

        threads = [threading.Thread(target=run, args=(number, write_something)) for number in range(WRITERS)]
        threads += [threading.Thread(target=run, args=(WRITERS + number, read_something)) for number in range(READERS)]
        chaos = threading.Thread(target=trouble.make, args=(random.Random(SEED), ledger, over))
        try:
            for thread in [*threads, chaos]:
                thread.start()
            for thread in threads:
                thread.join()
            over.set()
            chaos.join()
            if ledger.violation is None:
                _at_the_end(ledger, clients(), collections)
        finally:
            trouble.end()
    told = ", ".join(f"{what} {count}" for what, count in sorted(ledger.counts.items()))
    print(f"\nseed {SEED}, {OPERATIONS} operations in {time.time() - began:.0f} s: {told}")
    if ledger.violation is not None:
        raise ledger.violation


def _first(client: Client, history: History) -> None:
    version, history.next = history.next, history.next + 1
    text = text_of(client.tenant, history.name, version)
    with client.ledger.writing(history, "put", version, version) as write:
        body = {"collection": "docs", "source_uri": history.name, "version": version, "text": text}
        answer = client.http.post("/api/v1/documents", json=body | {"mode": "write_through"})
        write.status = answer.status_code
    assert answer.status_code == 201, answer.text
    history.id = answer.json()["id"]
    client.ledger.by_id[history.id] = history
    history.seen.append(Seen(version, time.time()))


def _at_the_end(ledger: Ledger, clients: list[Client], collections: list[Any]) -> None:
    """When all work is done the newest readable version of each document is live, and of what was erased nothing is
    left."""
    for client, collection in zip(clients, collections, strict=True):

        def settled(collection: Any = collection) -> bool:
            with tenancy.scope(collection.tenant_id):
                return not IngestionJob.objects.filter(state__in=["queued", "running"]).exists()

        wait_for(settled, seconds=120, what="the jobs to end", every=0.2)
        client.read("eventual", "hybrid", {})
        found = client.judge.shown(client._search({"consistency": "eventual"}), "the end")
        for name, history in ledger.documents[client.tenant].items():
            gone = history.removed("delete", "erase", before=time.time())
            newest = history.newest_accepted(before=time.time(), readable=True)
            expected = newest if newest > gone else None
            if (found[name].version if name in found else None) != expected:
                ledger.fail(history, f"in the end {expected} should be live, and {found.get(name)} is")
            erased = history.removed("erase", before=time.time())
            if erased and not any(w.version > erased and w.accepted for w in history.writes):
                with tenancy.scope(collection.tenant_id):
                    left = {table: rows for table, rows in erasure.traces(history.id).items() if rows}  # type: ignore[arg-type]
                if left:
                    ledger.fail(history, f"I8: rows are left after the erasure: {left}")
