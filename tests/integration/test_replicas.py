"""Searches by read replicas: real standbys that are killed, stopped, promoted and made to lag, behind a real web
server. What is proved in each: no search fails, and none says what the primary would not."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from apps.access import keys, replicas, tenancy
from apps.access.models import ApiKey, Tenant
from apps.documents import edit, remove, second_space, spaces
from apps.documents.accept import Accepted
from apps.documents.models import Collection
from tests.conftest import DATA
from tests.support.processes import Server, wait_for
from tests.support.standby import Standby

Ingest = Callable[..., Accepted]
ALIASES = ("replica_0", "replica_1")
MAX_LAG = 16


@pytest.fixture(scope="module")
def standbys(database: None) -> Iterator[tuple[Standby, Standby]]:
    directory = Path(tempfile.mkdtemp(prefix="ragsite-standby-"))
    try:
        with Standby(DATA, directory / "a") as one, Standby(DATA, directory / "b") as two:
            yield one, two
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def replicated(standbys: tuple[Standby, Standby]) -> Iterator[Server]:
    """A web process with two replicas; no result is kept, so that each search is one."""
    urls = ",".join(standby.url for standby in standbys)
    more = {"DATABASE_REPLICA_URLS": urls, "REPLICA_MAX_LAG_SECONDS": str(MAX_LAG), "RESULT_CACHE_MB": "0"}
    with Server(DATA, **more) as server:
        yield server


class Asking:
    """A tenant's client of the replicated web server."""

    def __init__(self, server: Server, key: str) -> None:
        self.client = server.client(key)

    def search(self, query: str = "pangolin", *, token: str = "", **more: Any) -> dict[str, Any]:
        headers = {replicas.HEADER: token} if token else {}
        found = self.client.post("/api/v1/search", json={"query": query, "mode": "lexical"} | more, headers=headers)
        assert found.status_code == 200, found.text
        return found.json()

    def names(self, **more: Any) -> list[str]:
        return [hit["source_uri"] for hit in self.search(**more)["results"]]

    def metric(self, name: str, **labels: str) -> float:
        """Summed over the series that have these labels."""
        lines = self.client.get("/metrics").text.splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = [line for line in lines if line.startswith(name + "{") and all(each in line for each in wanted)]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def outcomes(self) -> dict[str, float]:
        return {each: self.metric("rag_replica_searches_total", outcome=each) for each in ("used", "behind", "failed")}

    def standing(self) -> dict[str, str]:
        checks = self.client.get("/readyz").json()["checks"]
        return {name: state for name, state in checks.items() if name.startswith("replica")}

    def until(self, **expected: str) -> None:
        """Wait until these replicas stand so; the others are fit."""
        wanted = dict.fromkeys(ALIASES, "ok") | expected

        def so() -> bool:
            found = self.standing()
            return all(found[alias].startswith(state) for alias, state in wanted.items())

        wait_for(so, seconds=60, what=f"{wanted}; they are {self.standing()}")

    def settle(self, **more: Any) -> None:
        """Until replicas are asked: where two searches have found the collections as they are."""

        def used() -> bool:
            before = self.outcomes()["used"]
            self.search(**more)
            return self.outcomes()["used"] > before

        self.until()
        wait_for(used, what=f"a search by a replica; {self.standing()}, {self.outcomes()}")


@pytest.fixture
def asking(replicated: Server, standbys: Any, api_key: str) -> Iterator[Asking]:
    asking = Asking(replicated, api_key)
    asking.until()
    yield asking
    asking.client.close()


@pytest.fixture
def paused(standbys: tuple[Standby, Standby]) -> Iterator[Callable[[], None]]:
    """paused(): from now on both replicas stay where they are."""

    def pause() -> None:
        for standby in standbys:
            standby.tell("SELECT pg_wal_replay_pause()")
        state = "SELECT pg_get_wal_replay_pause_state()"
        wait_for(lambda: all(standby.tell(state) == "paused" for standby in standbys), what="the pause")

    yield pause
    for standby in standbys:
        standby.tell("SELECT pg_wal_replay_resume()")


def test_replicas_do_the_searches(asking: Asking, collection: Collection, ingest: Ingest) -> None:
    ingest(collection, "Pangolins have scales.", source_uri="pangolin", metadata={"year": 2020})
    asked: list[dict[str, Any]] = [
        *({"mode": mode} for mode in ("dense", "lexical", "hybrid")),
        {"filters": {"metadata.year": 2020}},
        {"filters": {"metadata.year": {"$gte": 2019}}, "mode": "dense", "expand": 1, "diversify": 0.5},
        {"collections": ["docs"], "consistency": "eventual"},
    ]
    for more in asked:
        asking.settle(**more)
        before = asking.outcomes()
        assert [asking.names(**more) for _ in range(4)] == [["pangolin"]] * 4
        assert asking.outcomes() == before | {"used": before["used"] + 4}


@pytest.mark.parametrize(
    "more",
    [
        {"consistency": "strong"},
        {"as_of": "2999-01-01T00:00:00Z"},
        {"explain": True},
        {"filters": {"updated_at": {"$gt": "2020-01-01T00:00:00Z"}}},
    ],
    ids=str,
)
def test_what_cannot_be_proved_and_what_asks_for_the_newest_is_the_primarys(
    asking: Asking, collection: Collection, ingest: Ingest, more: dict[str, Any]
) -> None:
    accepted = ingest(collection, "Pangolins have scales.", source_uri="pangolin")
    asking.settle()
    if "as_of" in more:
        more = {"as_of": asking.client.get("/api/v1/documents").json()["results"][0]["updated_at"]}
    before = asking.outcomes()
    for _ in range(4):
        asking.search(**more)
        asking.search(min_versions={str(accepted.document.id): 1})
    assert asking.outcomes() == before


def test_a_search_that_waits_for_nothing_sees_its_own_write(asking: Asking, collection: Collection) -> None:
    """Over and over, with and without the token, however the replicas lag: at first, and until one of them answers."""
    names: set[str] = set()

    def sees_it(token: str) -> None:
        assert set(asking.names(k=50, token=token)) == names

    def by_a_replica(token: str) -> bool:
        before = asking.outcomes()["used"]
        sees_it(token)
        return asking.outcomes()["used"] > before

    for number in range(20):
        body = {
            "collection": "docs",
            "source_uri": f"p{number}",
            "text": f"Pangolin {number}.",
            "mode": "write_through",
        }
        written = asking.client.post("/api/v1/documents", json=body)
        assert written.status_code == 201
        names.add(f"p{number}")
        token = written.headers[replicas.HEADER] if number % 2 else ""
        for _ in range(3):
            sees_it(token)
        wait_for(lambda token=token: by_a_replica(token), what="a search by a replica")


def test_a_token_keeps_away_from_replicas_that_have_not_come_as_far(
    asking: Asking, collection: Collection, ingest: Ingest, paused: Callable[[], None]
) -> None:
    ingest(collection, "Pangolins have scales.", source_uri="pangolin")
    asking.settle()
    early = asking.client.post("/api/v1/collections", json={"slug": "more", "name": "More"})
    assert early.status_code == 201
    token = early.headers[replicas.HEADER]

    def with_token() -> bool:
        before = asking.outcomes()["used"]
        asking.search(collections=["docs"], token=token)
        return asking.outcomes()["used"] > before

    wait_for(with_token, what="a replica that has replayed the token")
    paused()
    late = asking.client.patch("/api/v1/collections/more", json={"name": "Even more"}).headers[replicas.HEADER]
    before = asking.outcomes()
    asking.search(collections=["docs"], token=token)
    assert asking.outcomes()["used"] == before["used"] + 1, "what it has seen it may be asked for"
    for unreached in (late, "FFFFFFFF/0", "nonsense"):
        before = asking.outcomes()
        assert asking.names(collections=["docs"], token=unreached) == ["pangolin"]
        assert asking.outcomes() == before, "nor asked in vain"


def test_only_writes_have_a_token_and_only_where_there_are_replicas(
    asking: Asking, server: str, api_key: str, collection: Collection
) -> None:
    assert replicas.HEADER not in asking.client.get("/api/v1/collections").headers
    assert replicas.HEADER not in asking.client.post("/api/v1/search", json={"query": "x"}).headers
    assert replicas.HEADER not in asking.client.post("/api/v1/collections", json={}).headers, "nothing was written"
    own = {"Authorization": f"Bearer {api_key}"}
    made = httpx.post(f"{server}/api/v1/collections", json={"slug": "more", "name": "More"}, headers=own, timeout=30)
    assert made.status_code == 201 and replicas.HEADER not in made.headers


def _deleted(tenant: Tenant, collection: Collection, accepted: Accepted, ingest: Ingest) -> list[str]:
    remove.delete(tenant_id=tenant.id, document_id=accepted.document.id)
    return ["other"]


def _erased(tenant: Tenant, collection: Collection, accepted: Accepted, ingest: Ingest) -> list[str]:
    remove.delete(tenant_id=tenant.id, document_id=accepted.document.id, erase=True)
    return ["other"]


def _published(tenant: Tenant, collection: Collection, accepted: Accepted, ingest: Ingest) -> list[str]:
    ingest(collection, "Nothing of the sort.", source_uri="pangolin")
    return ["other"]


def _edited(tenant: Tenant, collection: Collection, accepted: Accepted, ingest: Ingest) -> list[str]:
    with tenancy.scope(tenant.id):
        edit.edit(accepted.document.id, {"metadata": {"year": 1999}})
    return ["other"]


@pytest.mark.parametrize("change", [_deleted, _erased, _published, _edited])
def test_what_has_changed_is_never_answered_from_a_replica_that_has_not_seen_it(
    asking: Asking,
    tenant: Tenant,
    collection: Collection,
    ingest: Ingest,
    paused: Callable[[], None],
    standbys: tuple[Standby, Standby],
    change: Callable[..., list[str]],
) -> None:
    """I8, with replicas that still have it all."""
    asked: dict[str, Any] = {"filters": {"metadata.year": 2020}, "k": 5}
    accepted = ingest(collection, "A pangolin.", source_uri="pangolin", metadata={"year": 2020})
    ingest(collection, "Another pangolin.", source_uri="other", metadata={"year": 2020})
    asking.settle(**asked)
    paused()
    before = asking.outcomes()
    assert set(asking.names(**asked)) == {"pangolin", "other"}
    assert asking.outcomes()["used"] == before["used"] + 1, "the paused replica was asked, and what it said still held"
    expected = change(tenant, collection, accepted, ingest)
    for standby in standbys:
        held = "SELECT count(*) FROM documents_chunk WHERE retired_in_version IS NULL AND document_id = '{}'"
        assert standby.tell(held.format(accepted.document.id)) == 1, "the replica would have found it"
    for consistency in ("eventual", "bounded", "strong"):
        for _ in range(5):
            assert asking.names(**asked, consistency=consistency) == expected
    found = asking.outcomes()
    assert found["used"] == before["used"] + 1 and found["behind"] > before["behind"], (
        "they were asked, and not believed"
    )


def test_a_newer_version_on_its_way_is_told(
    asking: Asking, collection: Collection, ingest: Ingest, put: Callable[..., Accepted], paused: Callable[[], None]
) -> None:
    """Its acceptance changes no epoch."""
    ingest(collection, "A pangolin.", source_uri="pangolin")
    asking.settle()
    paused()
    put(collection, "A newer pangolin.", source_uri="pangolin")
    found = asking.search(consistency="eventual")
    assert [hit["fresh"] for hit in found["results"]] == [False] and len(found["stale"]) == 1


def test_a_key_that_was_revoked_is_refused_at_once(
    asking: Asking,
    replicated: Server,
    tenant: Tenant,
    collection: Collection,
    ingest: Ingest,
    paused: Callable[[], None],
) -> None:
    ingest(collection, "A pangolin.", source_uri="pangolin")
    made, secret = keys.create_key(tenant_id=tenant.id, name="passing", scopes=["read", "admin"])
    passing = Asking(replicated, secret)
    passing.settle()
    paused()
    assert passing.names() == ["pangolin"]
    with tenancy.scope(tenant.id):
        keys.revoke_key(key=ApiKey.objects.get(id=made.id))
    for _ in range(3):
        assert passing.client.post("/api/v1/search", json={"query": "pangolin"}).status_code == 401


def test_a_promoted_space_is_used_at_once(
    asking: Asking, tenant: Tenant, collection: Collection, ingest: Ingest, paused: Callable[[], None]
) -> None:
    for name in ("pangolin", "tapir", "heron"):
        ingest(collection, f"The {name} of the harbour is blue and the old crane is red.", source_uri=name)
    space = spaces.create(slug=f"replicated-{uuid4().hex[:8]}", backend="fake", model="fake", dimensions=32)
    with tenancy.scope(tenant.id):
        (build,) = second_space.begin(space=space)
    assert second_space.work(tenant_id=tenant.id, build_id=build.id) and second_space.finish(space)

    def scores(**more: str) -> list[float]:
        found = asking.search("the red crane and the blue pangolin of the old harbour", mode="dense", **more)
        return [hit["scores"]["dense"] for hit in found["results"]]

    asking.settle(mode="dense")
    before = scores()
    paused()
    with tenancy.scope(tenant.id):
        second_space.promote(space=space)
    after = scores(consistency="strong")
    assert after != before
    for consistency in ("eventual", "bounded"):
        for _ in range(4):
            assert scores(consistency=consistency) == after
    with tenancy.scope(tenant.id):
        second_space.rollback(space=space)
    assert [scores() for _ in range(4)] == [before] * 4


def test_searches_that_begin_after_a_delete_never_find_it(
    asking: Asking, replicated: Server, api_key: str, tenant: Tenant, collection: Collection, ingest: Ingest
) -> None:
    """While others search and the replicas lag as they do."""
    named = {f"p{number}": ingest(collection, f"Pangolin {number}.", source_uri=f"p{number}") for number in range(40)}
    gone: set[str] = set()
    over, wrong = threading.Event(), []

    def search() -> None:
        own = Asking(replicated, api_key)
        while not over.is_set():
            known = set(gone)
            found = set(own.names(k=100, consistency="eventual"))
            if found & known or not found >= named.keys() - set(gone) - {deleting[0]}:
                wrong.append((known, found))

    deleting = [""]
    asking.settle()
    before = asking.outcomes()
    with ThreadPoolExecutor(4) as searchers:
        done = [searchers.submit(search) for _ in range(4)]
        try:
            for name, accepted in list(named.items())[:30]:
                deleting[0] = name
                remove.delete(tenant_id=tenant.id, document_id=accepted.document.id)
                gone.add(name)
                seen = asking.outcomes()["used"]
                wait_for(lambda seen=seen: asking.outcomes()["used"] > seen, what="a search by a replica")
        finally:
            over.set()
        for each in done:
            each.result()
    assert not wrong and asking.outcomes()["used"] >= before["used"] + 30
    assert set(asking.names(k=100)) == named.keys() - gone


def test_one_that_lags_is_left_out_and_comes_back(
    asking: Asking,
    collection: Collection,
    ingest: Ingest,
    paused: Callable[[], None],
    standbys: tuple[Standby, Standby],
) -> None:
    ingest(collection, "A pangolin.", source_uri="pangolin")
    asking.settle()
    standbys[0].tell("SELECT pg_wal_replay_pause()")
    ingest(collection, "A tapir.", source_uri="tapir")
    before = asking.metric("rag_replica_left_out_total", replica="replica_0", reason="lagging")
    asking.until(replica_0="left out: lagging")
    assert asking.metric("rag_replica_left_out_total", replica="replica_0", reason="lagging") == before + 1
    assert asking.metric("rag_replica_lag_seconds", replica="replica_0") > MAX_LAG
    assert asking.metric("rag_replica_usable", replica="replica_0") == 0
    assert asking.metric("rag_replica_usable", replica="replica_1") == 1
    used = asking.metric("rag_replica_searches_total", replica="replica_0")
    for _ in range(6):
        assert asking.names() == ["pangolin"]
    assert asking.metric("rag_replica_searches_total", replica="replica_0") == used, "it is not asked"
    standbys[0].tell("SELECT pg_wal_replay_resume()")
    asking.settle()
    assert asking.metric("rag_replica_lag_seconds", replica="replica_0") < MAX_LAG


@pytest.fixture
def searching(asking: Asking, collection: Collection, ingest: Ingest) -> Iterator[Callable[[], int]]:
    """Searches all the while, from four clients; searching(): how many have been answered, rightly all of them."""
    ingest(collection, "A pangolin.", source_uri="pangolin")
    asking.settle()
    over, wrong, right = threading.Event(), [], []

    def search() -> None:
        while not over.is_set():
            try:
                names = asking.names(mode="hybrid")
            except Exception as error:
                wrong.append(error)
            else:
                (right if names == ["pangolin"] else wrong).append(names)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()

    def answered() -> int:
        assert not wrong
        return len(right)

    try:
        yield answered
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert answered()


def _some_more(searching: Callable[[], int]) -> None:
    before = searching()
    wait_for(lambda: searching() > before + 100, what="a hundred searches")


def test_kill_9_of_a_replica_fails_no_search_and_it_comes_back(
    asking: Asking, searching: Callable[[], int], standbys: tuple[Standby, Standby]
) -> None:
    def nobody_is_asked() -> bool:
        before = asking.outcomes()
        _some_more(searching)
        return asking.outcomes() == before

    _some_more(searching)
    try:
        standbys[1].kill()
        asking.until(replica_1="left out: unreachable")
        _some_more(searching)
        standbys[0].kill()
        asking.until(replica_0="left out: unreachable", replica_1="left out: unreachable")
        wait_for(nobody_is_asked, what="who was waiting for a replica to go to the primary")
    finally:
        for standby in standbys:
            standby.start()
    asking.until()
    used = {alias: asking.metric("rag_replica_searches_total", replica=alias, outcome="used") for alias in ALIASES}
    _some_more(searching)
    for alias in ALIASES:
        assert asking.metric("rag_replica_searches_total", replica=alias, outcome="used") > used[alias]


def test_a_replica_that_hangs_fails_no_search_and_holds_none_up_for_long(
    asking: Asking, searching: Callable[[], int], standbys: tuple[Standby, Standby]
) -> None:
    """Connections stay open, and nothing comes: who waits is cut off."""
    _some_more(searching)
    failed = asking.outcomes()["failed"]
    for standby in standbys:
        standby.hang()
    try:
        asking.until(replica_0="left out", replica_1="left out")
        _some_more(searching)
        assert asking.outcomes()["failed"] > failed
    finally:
        for standby in standbys:
            standby.go_on()
    asking.until()
    _some_more(searching)


def test_one_that_was_promoted_is_not_used(
    asking: Asking, collection: Collection, ingest: Ingest, replicated: Server, api_key: str
) -> None:
    """Nobody would know what it has been told since. A server of its own, because there is no way back."""
    ingest(collection, "A pangolin.", source_uri="pangolin")
    directory = Path(tempfile.mkdtemp(prefix="ragsite-standby-"))
    with Standby(DATA, directory / "c") as standby:
        more = {"DATABASE_REPLICA_URLS": standby.url, "RESULT_CACHE_MB": "0"}
        with Server(DATA, **more) as server:
            alone = Asking(server, api_key)
            wait_for(lambda: alone.standing()["replica_0"].startswith("ok"), what="it to be fit")
            before = alone.outcomes()["used"]
            wait_for(lambda: alone.search() and alone.outcomes()["used"] > before, what="a search by it")
            standby.tell("SELECT pg_promote()")
            before = alone.outcomes()["used"]
            assert [alone.names() for _ in range(5)] == [["pangolin"]] * 5
            assert alone.outcomes()["used"] == before
            wait_for(lambda: alone.standing()["replica_0"] == "left out: promoted", what="it to be left out")


def test_row_level_security_holds_there(
    asking: Asking, replicated: Server, collection: Collection, other_tenant: Tenant, ingest: Ingest, make_key: Any
) -> None:
    ingest(collection, "A pangolin.", source_uri="pangolin")
    asking.settle()
    other = Asking(replicated, make_key(other_tenant))
    assert [other.names() for _ in range(5)] == [[]] * 5
