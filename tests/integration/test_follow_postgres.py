"""docs/howto/follow_postgres.py: whatever happens to a table, and whoever dies, the collection ends equal to it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest

from apps.access import tenancy
from apps.documents.models import Collection, Document
from ragsite.embedded import paths, system
from ragsite.embedded.postgres import Postgres
from tests.conftest import DATA
from tests.support.processes import ROOT, Server, Workers, free_port, wait_for

from .test_feed import new_feed, settle, states

SCRIPT = ROOT / "docs" / "howto" / "follow_postgres.py"
TEXT = "public.notes=Note {title}\n\n{body}"
#: 16 kB that do not compress: kept outside of their row, and not in the log when only the title is changed.
LONG = random.Random(1).randbytes(8_000).hex()

Rows = dict[str, str]  # source URI: text


@pytest.fixture(scope="module")
def dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of its own, with logical replication."""
    data = tmp_path_factory.mktemp("source")
    server = Postgres(data)
    user = system.service_user(server.cluster)
    system.let_through(server.cluster, user)
    for directory in (paths.socket_dir(data), paths.log_dir(data)):
        system.make_dir(directory, user, 0o700)
    try:
        server.start(lambda: False)
        with (server.cluster / "postgresql.conf").open("a") as settings:
            settings.write("wal_level = logical\n")
        server.stop()
        server.start(lambda: False)
        yield paths.superuser_url(data)
    finally:
        server.stop()


@pytest.fixture
def source(dsn: str) -> Iterator[psycopg.Connection]:
    """A connection, and the tables `notes` and `Odd names` in the publication `documents`."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE notes (id int PRIMARY KEY, title text, body text)")
        connection.execute(
            'CREATE TABLE "Odd names" ("the key" text, n int, text text, yes bool, at timestamptz, raw bytea,'
            ' PRIMARY KEY (n, "the key"))'
        )
        connection.execute("CREATE PUBLICATION documents FOR ALL TABLES")
        yield connection
        connection.execute("DROP PUBLICATION documents")
        connection.execute('DROP TABLE notes, "Odd names"')
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")


@pytest.fixture
def feed(client: httpx.Client, collection: Collection) -> str:
    return str(client.base_url.join(new_feed(client)))


class Follower:
    """The script as a process."""

    def __init__(self, dsn: str, feed: str, key: str, *options: str) -> None:
        self.command = [sys.executable, str(SCRIPT), "--source-dsn", dsn, "--publication", "documents", "--feed", feed]
        self.command += ["--text", TEXT, "--title", "public.notes={title}", "--poll", "0.1", *options]
        self.environment = os.environ | {"RAGSITE_API_KEY": key}
        self.log = DATA / "follower.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, cwd="/", stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def run(dsn: str, feed: str, key: str, *options: str) -> tuple[int, str]:
    """(exit status, what it said) of a follower that ends by itself."""
    follower = Follower(dsn, feed, key, *options)
    follower.kill()
    done = subprocess.run(follower.command, env=follower.environment, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def table(source: psycopg.Connection) -> Rows:
    """What the collection should hold."""
    notes = source.execute("SELECT id, coalesce(title, ''), coalesce(body, '') FROM notes").fetchall()
    odd = source.execute('SELECT n, "the key", text, at::text FROM "Odd names"').fetchall()
    return {f"public.notes/{key}": f"Note {title}\n\n{body}" for key, title, body in notes} | {
        f"public.Odd names/{n}/{quote(key, safe='')}": f"the key: {key}\nn: {n}"
        + ("" if text is None else f"\ntext: {text}\nyes: t\nat: {at}\nraw: \\x00ff")
        for n, key, text, at in odd
    }


def caught_up(source: psycopg.Connection) -> None:
    """Wait until the follower has taken all that was committed before."""
    (now,) = source.execute("SELECT pg_current_wal_lsn()").fetchone() or ("",)
    query = "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'ragsite' AND confirmed_flush_lsn >= %s"
    wait_for(
        lambda: source.execute(query, [now]).fetchone(), seconds=300, what=f"the follower; see {DATA}/follower.log"
    )


def assert_equal(collection: Collection, source: psycopg.Connection) -> None:
    """The live documents are the rows of the tables, when the follower and the workers have done their work."""
    caught_up(source)
    settle(collection)
    with tenancy.scope(collection.tenant_id):
        stored = Document.objects.filter(collection=collection, deleted_at=None)
        found = {each.source_uri: (bytes(each.content_sha256), each.live_version == each.version) for each in stored}
    wanted = {uri: (hashlib.sha256(text.encode()).digest(), True) for uri, text in table(source).items()}
    assert found.keys() == wanted.keys()
    assert [uri for uri, state in wanted.items() if found[uri] != state] == []


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL", "USING INDEX notes_pkey"])
def test_rows_that_come_change_and_go(
    source: psycopg.Connection,
    dsn: str,
    feed: str,
    api_key: str,
    client: httpx.Client,
    collection: Collection,
    workers: Workers,
    identity: str,
) -> None:
    source.execute(f"ALTER TABLE notes REPLICA IDENTITY {identity}")
    source.execute("INSERT INTO notes SELECT n, 'title ' || n, 'body ' || n FROM generate_series(1, 20) n")
    source.execute("INSERT INTO notes VALUES (21, 'long', %s), (22, 'long', %s), (23, 'long', %s)", [LONG] * 3)
    source.execute("INSERT INTO notes VALUES (24, NULL, 'no title'), (25, 'no body', NULL)")
    odd = "INSERT INTO \"Odd names\" VALUES (%s, 1, %s, true, '2024-02-29 12:00:00.120+01', '\\x00ff')"
    source.execute(odd, ["a/b %% {c}", "ünï \\ \t ' \" \r\n {body} \u2028 🦔"])
    source.execute("INSERT INTO \"Odd names\" VALUES ('', 2)")
    with Follower(dsn, feed, api_key):
        assert_equal(collection, source)
        found = client.get("/api/v1/documents", params={"source_uri": "public.notes/3"}).json()["results"][0]
        assert found["title"] == "title 3"
        source.execute("INSERT INTO notes VALUES (30, 'new', 'came later')")
        source.execute("UPDATE notes SET body = 'changed' WHERE id IN (1, 2)")
        source.execute("DELETE FROM notes WHERE id IN (3, 4)")
        source.execute("UPDATE notes SET id = id + 100 WHERE id IN (5, 6)")
        source.execute("UPDATE notes SET title = 'only the title of what is long' WHERE id IN (21, 22)")
        source.execute("UPDATE notes SET id = 122, title = 'and its key' WHERE id = 22")
        source.execute("DELETE FROM notes WHERE id = 21")
        source.execute("UPDATE notes SET title = 'the last word' WHERE id = 23")
        source.execute("UPDATE \"Odd names\" SET \"the key\" = 'c/d', text = 'x' || text WHERE n = 1")
        with source.transaction():  # of a row that is touched more than once only the last state counts
            source.execute("INSERT INTO notes VALUES (40, 'one', 'state')")
            source.execute("UPDATE notes SET body = 'another' WHERE id = 40")
            source.execute("INSERT INTO notes VALUES (41, 'comes', 'and goes')")
            source.execute("DELETE FROM notes WHERE id = 41")
            source.execute("DELETE FROM notes WHERE id = 7")
            source.execute("INSERT INTO notes VALUES (7, 'back', 'again')")
        with source.transaction():  # two rows take each other's key
            source.execute("UPDATE notes SET id = 0 WHERE id = 8")
            source.execute("UPDATE notes SET id = 8 WHERE id = 9")
            source.execute("UPDATE notes SET id = 9 WHERE id = 0")
        with contextlib.suppress(ZeroDivisionError), source.transaction():
            source.execute("UPDATE notes SET body = 'never happened'")
            raise ZeroDivisionError
        assert_equal(collection, source)
        with source.transaction():
            source.execute("INSERT INTO notes VALUES (50, 'before', 'is gone')")
            source.execute("TRUNCATE notes")
            source.execute("INSERT INTO notes VALUES (51, 'after', 'stays'), (10, 'ten', 'is back')")
        assert_equal(collection, source)
        source.execute('TRUNCATE notes, "Odd names"')
        assert_equal(collection, source)
        assert table(source) == {}


def test_a_change_that_waited_for_a_later_one_has_the_last_word(
    source: psycopg.Connection, dsn: str, feed: str, api_key: str, collection: Collection, workers: Workers
) -> None:
    """The second transaction writes its row to the log, then waits for the first one, which goes on and writes more:
    the position of the last change is lower than that of the one before."""
    with Follower(dsn, feed, api_key), psycopg.connect(dsn, autocommit=True) as other:
        caught_up(source)
        with source.transaction():
            source.execute("INSERT INTO notes VALUES (1, 'first', 'transaction')")
            waiting = threading.Thread(target=other.execute, args=["INSERT INTO notes VALUES (1, 'second', 'wins')"])
            waiting.start()
            blocked = "SELECT 1 FROM pg_locks WHERE NOT granted"
            wait_for(lambda: source.execute(blocked).fetchone(), what="the second one to wait")
            source.execute("DELETE FROM notes WHERE id = 1")
        waiting.join()
        assert table(source) == {"public.notes/1": "Note second\n\nwins"}
        assert_equal(collection, source)


def test_what_happens_while_the_slot_is_made_is_not_lost(
    source: psycopg.Connection, dsn: str, feed: str, api_key: str, collection: Collection, workers: Workers
) -> None:
    """Three transactions that overlap: a slot waits for the first and then for the second; the third writes to the log
    before the slot begins and commits after it."""
    source.execute("INSERT INTO notes SELECT n, 'old', 'body' FROM generate_series(1, 3) n")
    others = [psycopg.connect(dsn) for _ in range(3)]
    at = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type = 'walsender'"
    with contextlib.ExitStack() as stack:
        for number, other in enumerate(others, start=1):
            stack.enter_context(other)
            if number == 1:
                other.execute("UPDATE notes SET title = 'new' WHERE id = 1")
                stack.enter_context(Follower(dsn, feed, api_key))
                wait_for(lambda: source.execute(at).fetchone(), what="the slot to wait for the first")
                others[1].execute("UPDATE notes SET title = 'new' WHERE id = 2")
        others[0].commit()
        time.sleep(1)
        others[2].execute("UPDATE notes SET title = 'new' WHERE id = 3")
        others[1].commit()
        slot = "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'ragsite'"
        wait_for(lambda: source.execute(slot).fetchone(), what="the slot")
        others[2].commit()
        assert_equal(collection, source)
        assert {row[0] for row in source.execute("SELECT title FROM notes")} == {"new"}


def test_a_commit_that_others_do_not_see_yet_is_waited_for(
    source: psycopg.Connection, dsn: str, feed: str, api_key: str, collection: Collection, workers: Workers
) -> None:
    """It waits for a standby: the log has it, the table does not show it, and what it left as it was is asked for."""
    source.execute("INSERT INTO notes VALUES (1, 'old', %s)", [LONG])
    source.execute("SET synchronous_commit = local")
    with Follower(dsn, feed, api_key), psycopg.connect(dsn, autocommit=True) as other:
        assert_equal(collection, source)
        try:
            source.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            source.execute("SELECT pg_reload_conf()")
            shown = "SHOW synchronous_standby_names"
            wait_for(lambda: other.execute(shown).fetchone() == ("nobody",), what="the setting")
            waiting = threading.Thread(target=other.execute, args=["UPDATE notes SET title = 'new' WHERE id = 1"])
            waiting.start()
            stands = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            wait_for(lambda: source.execute(stands).fetchone(), what="the commit to wait")
            time.sleep(1)
            assert table(source) == {"public.notes/1": f"Note old\n\n{LONG}"}
        finally:
            source.execute("ALTER SYSTEM RESET synchronous_standby_names")
            source.execute("SELECT pg_reload_conf()")
            waiting.join()
        assert table(source) == {"public.notes/1": f"Note new\n\n{LONG}"}
        assert_equal(collection, source)


def test_only_what_is_published_is_followed(
    source: psycopg.Connection, dsn: str, feed: str, api_key: str, collection: Collection, workers: Workers
) -> None:
    source.execute('CREATE PUBLICATION "Some notes" FOR TABLE notes (id, title) WHERE (id < 100 OR id = 1000)')
    source.execute("INSERT INTO notes SELECT n, 'title ' || n, 'secret' FROM generate_series(98, 102) n")
    options = ("--publication", "Some notes", "--text", "public.notes={title}")

    def live() -> dict[str, str]:
        caught_up(source)
        settle(collection)
        return {name: state[5][0] for name, state in states(collection).items() if state[2] == "live"}

    try:
        with Follower(dsn, feed, api_key, *options):
            assert live() == {"public.notes/98": "title 98", "public.notes/99": "title 99"}
            source.execute("UPDATE notes SET id = 1000 WHERE id = 102")
            source.execute("UPDATE notes SET id = 102 WHERE id = 98")
            source.execute("UPDATE notes SET title = 'nobody sees it' WHERE id = 101")
            source.execute("UPDATE notes SET body = 'another secret' WHERE id = 99")
            assert live() == {"public.notes/99": "title 99", "public.notes/1000": "title 102"}
    finally:
        source.execute('DROP PUBLICATION "Some notes"')


def test_whoever_dies_meanwhile_all_ends_equal(
    source: psycopg.Connection,
    dsn: str,
    feed: str,
    api_key: str,
    collection: Collection,
    workers: Workers,
    tmp_path: Path,
) -> None:
    dice = random.Random(4)
    source.execute("INSERT INTO notes SELECT n, 'first', 'body ' || n FROM generate_series(1, 1200) n")
    stop = threading.Event()
    port = free_port()
    elsewhere = feed.replace(feed.split("/api")[0], f"http://127.0.0.1:{port}")
    writers = [threading.Thread(target=_write, args=[dsn, random.Random(seed), stop]) for seed in range(3)]
    with Server(DATA, port=port) as server, Follower(dsn, elsewhere, api_key, "--changes", "50") as follower:
        for writer in writers:
            writer.start()
        try:
            for _ in range(8):  # the first deaths fall into the first copy
                time.sleep(dice.uniform(0.5, 2.5))
                follower.kill()
                follower.start()
            server.running.kill()
            time.sleep(3)
            follower.kill()
            follower.start()
            time.sleep(3)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert follower.process.poll() is None
        # The last act may have been a TRUNCATE: there is something to compare all the same.
        source.execute("INSERT INTO notes SELECT n, 'last', 'body ' || n FROM generate_series(2000, 2020) n")
        with Server(DATA, port=port):
            assert_equal(collection, source)
            assert len(table(source)) > 10
            follower.kill()  # a slot that is lost: rows that go meanwhile are missed, and found by the next copy
            source.execute("SELECT pg_drop_replication_slot('ragsite')")
            source.execute("DELETE FROM notes WHERE id % 2 = 0")
            source.execute("UPDATE notes SET title = 'seen by nobody' WHERE id % 3 = 0")
            follower.start()
            wait_for(
                lambda: source.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'ragsite'").fetchone(),
                what="the slot",
            )
            assert_equal(collection, source)


def _write(dsn: str, dice: random.Random, stop: threading.Event) -> None:
    """Whatever may happen to a table of notes, in transactions of one to five acts, until told to stop."""

    def some() -> int:
        return dice.randrange(40)

    acts: list[Any] = [
        lambda: ("INSERT INTO notes VALUES (%s, 'in', %s) ON CONFLICT DO NOTHING", [some(), dice.randbytes(9).hex()]),
        lambda: ("INSERT INTO notes VALUES (%s, 'plain', 'in')", [some()]),
        lambda: ("INSERT INTO notes VALUES (%s, 'long', %s) ON CONFLICT DO NOTHING", [some(), LONG]),
        lambda: ("UPDATE notes SET title = %s WHERE id = %s", [dice.randbytes(4).hex(), some()]),
        lambda: ("UPDATE notes SET body = %s WHERE id = %s", [dice.randbytes(9).hex(), some()]),
        lambda: ("UPDATE notes SET id = %s WHERE id = %s", [some(), some()]),
        lambda: ("DELETE FROM notes WHERE id = %s", [some()]),
        lambda: ("DELETE FROM notes WHERE id = %s", [dice.randrange(40, 1200)]),
        lambda: ("TRUNCATE notes" if dice.random() < 0.02 else "SELECT 1", []),
    ]
    with psycopg.connect(dsn) as connection:
        connection.execute("SET deadlock_timeout = '20ms'")
        connection.commit()
        while not stop.is_set():
            try:
                for _ in range(dice.randint(1, 5)):
                    connection.execute(*dice.choice(acts)())
                connection.commit()
            except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
                connection.rollback()
            time.sleep(dice.uniform(0, 0.02))


def test_a_database_in_another_encoding(
    dsn: str, feed: str, api_key: str, collection: Collection, workers: Workers
) -> None:
    with psycopg.connect(dsn, autocommit=True) as server:
        server.execute("CREATE DATABASE latin1 TEMPLATE template0 ENCODING LATIN1 LOCALE_PROVIDER libc LOCALE 'C'")
    other = psycopg.conninfo.make_conninfo(dsn, dbname="latin1")
    with psycopg.connect(other, autocommit=True) as source:
        source.execute("CREATE TABLE notes (id int PRIMARY KEY, title text, body text)")
        source.execute('CREATE TABLE "Odd names" ("the key" text PRIMARY KEY, n int, text text, at timestamptz)')
        source.execute("CREATE PUBLICATION documents FOR TABLE notes")
        source.execute("INSERT INTO notes VALUES (1, 'Tür', 'copied: ß'), (2, 'Öl', 'copied')")
        with Follower(other, feed, api_key):
            assert_equal(collection, source)
            source.execute("UPDATE notes SET title = 'Türen', body = 'from the log: é' WHERE id = 1")
            assert_equal(collection, source)
        source.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


def test_what_cannot_be_followed_is_said(
    source: psycopg.Connection, dsn: str, feed: str, api_key: str, collection: Collection
) -> None:
    for options, why in [
        (["--text", "public.notes={colour}"], "public.notes publishes no column colour"),
        (["--publication", "nothing"], "no publication nothing"),
        (["--feed", feed.replace("/events", "/other")], "404"),
        (["--source-dsn", "host=/nowhere"], "PostgreSQL: "),
    ]:
        status, said = run(dsn, feed, api_key, *options)
        assert status == 1 and why in said and "Traceback" not in said, said
    status, said = run(dsn, feed, "rs_wrong")
    assert status == 1 and "401" in said and "Traceback" not in said
    source.execute("CREATE TABLE keyless (text text)")
    try:
        status, said = run(dsn, feed, api_key)
        assert status == 1 and "public.keyless has no primary key" in said
    finally:
        source.execute("DROP TABLE keyless")
    assert source.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)


def test_a_refused_row_stops_the_follower_unless_told_otherwise(
    source: psycopg.Connection, dsn: str, feed: str, api_key: str, collection: Collection, workers: Workers
) -> None:
    with Follower(dsn, feed, api_key):
        caught_up(source)
    source.execute("INSERT INTO \"Odd names\" VALUES (repeat('x', 2100), 1, 'Its name is too long.')")
    source.execute("INSERT INTO notes VALUES (1, 'after', 'it')")
    status, said = run(dsn, feed, api_key)
    assert status == 1 and "/source_uri" in said and "Traceback" not in said
    with Follower(dsn, feed, api_key, "--skip-refused"):
        caught_up(source)
    settle(collection)
    with tenancy.scope(collection.tenant_id):
        assert [each.source_uri for each in Document.objects.all()] == ["public.notes/1"]
