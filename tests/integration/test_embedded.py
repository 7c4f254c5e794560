"""The embedded servers: started once, shared, restarted after a kill, stopped by the last one out."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from ragsite import embedded
from ragsite.embedded import holders, paths
from ragsite.embedded.postgres import Postgres
from ragsite.embedded.redis import Redis

REPOSITORY = Path(__file__).resolve().parents[2]
# Attach, say so, and leave when stdin is closed.
HOLDER = """
import sys
from ragsite import embedded
embedded.attach()
print("attached", flush=True)
sys.stdin.read()
"""


def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until `condition` holds; fail after `seconds`."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.05)


def environment(root: Path, **more: str) -> dict[str, str]:
    """The environment of a process that uses `root`, with no real server named."""
    kept = {k: v for k, v in os.environ.items() if k not in {"DATABASE_URL", "REDIS_URL"}}
    return kept | {"RAGSITE_DATA_DIR": str(root), **more}


def hold(root: Path) -> subprocess.Popen[str]:
    """A process that is attaching to `root`; closing its stdin ends it."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        env=environment(root),
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def attached(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """Wait until `process` has attached."""
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "attached\n", process.stderr.read()
    return process


def leave(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")


def running(root: Path) -> tuple[bool, bool]:
    """Whether PostgreSQL and Redis of `root` answer."""
    return Postgres(root).alive(), Redis(root).alive()


def postmasters(root: Path) -> list[int]:
    """Every PostgreSQL main process working in `root`'s cluster, however it was started."""
    return [
        process.pid
        for process in holders.system.processes_in(root / "postgres")
        if f"{root}/postgres" in process.cmdline()
    ]


def query(url: str, statement: str) -> list[tuple]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data directory with a cluster, made once and used by one test after the other."""
    root = Path(tempfile.mkdtemp(prefix="rs-"))
    root.chmod(0o755)
    leave(attached(hold(root)))
    yield root
    shutil.rmtree(root)


@pytest.fixture
def root(made: Path) -> Iterator[Path]:
    """A data directory with a stopped cluster; whatever the test left running is stopped afterwards."""
    yield made
    Postgres(made).stop()
    Redis(made).stop()


@pytest.fixture
def spare(root: Path) -> Iterator[Path]:
    """A copy of it, to be spoilt or moved."""
    place = Path(tempfile.mkdtemp(prefix="rs-"))
    place.chmod(0o755)
    subprocess.run(["cp", "-a", str(root / "postgres"), str(place)], check=True)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, with this very process attached."""
    monkeypatch.setenv("RAGSITE_DATA_DIR", str(root))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    embedded.attach()
    yield root
    embedded.stop()


def test_two_processes_at_once_start_one_server_and_the_last_one_out_stops_it(tmp_path):
    root = Path(tempfile.mkdtemp(prefix="rs-"))  # a fresh one: both find no cluster
    root.chmod(0o755)
    try:
        first, second = [attached(process) for process in [hold(root), hold(root)]]
        assert len(postmasters(root)) == 1
        leave(first)
        assert running(root) == (True, True)
        leave(second)
        assert running(root) == (False, False)
        assert not postmasters(root)
        assert "database system is shut down" in (embedded.log_dir(root) / "postgres.log").read_text()
    finally:
        shutil.rmtree(root)


def test_a_killed_holder_holds_nothing_and_the_janitor_stops_the_servers(root):
    killed, other = attached(hold(root)), attached(hold(root))
    killed.kill()
    killed.communicate()
    time.sleep(0.3)
    assert running(root) == (True, True), "another holder is left"
    other.kill()
    other.communicate()
    until(lambda: running(root) == (False, False))
    leave(attached(hold(root)))
    assert running(root) == (False, False)


def test_a_forked_child_neither_holds_the_servers_nor_stops_them(here):
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os._exit(int(embedded.stop()))
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert running(here) == (True, True)
    assert embedded.stop(), "this process is the last holder, whatever the child did"


def test_a_killed_postgres_comes_back_with_its_data(here):
    url = embedded.owner_url(here)
    query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    busy = psycopg.connect(url)  # a backend that outlives its postmaster for a while
    os.kill(postmasters(here)[0], signal.SIGKILL)
    until(lambda: embedded.ensure_running() == ["PostgreSQL"])
    assert query(url, "SELECT answer FROM kept") == [(42,)]
    assert embedded.ensure_running() == []
    busy.close()


def test_orphans_in_a_long_query_do_not_keep_postgres_down(here):
    url = embedded.superuser_url(here)
    busy = psycopg.connect(url, autocommit=True)
    # A loop that never waits does not notice that its postmaster is gone.
    busy.pgconn.send_query(b"DO $$ BEGIN LOOP END LOOP; END $$")
    until(lambda: query(url, "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'"))
    os.kill(postmasters(here)[0], signal.SIGKILL)
    until(lambda: embedded.ensure_running() == ["PostgreSQL"])
    assert query(url, "SELECT 1") == [(1,)]


def test_a_pid_file_of_another_process_does_not_count(root):
    (root / "postgres" / "postmaster.pid").write_text(
        f"{os.getpid()}\n{root}/postgres\n1\n5432\n{root}/run\n\n 1 1\nready\n"
    )
    assert not Postgres(root).alive()
    process = attached(hold(root))
    assert running(root) == (True, True)
    leave(process)


def test_a_killed_redis_comes_back(here):
    client = redis.Redis.from_url(embedded.redis_url(here))
    client.set("key", "value")
    os.kill(client.info("server")["process_id"], signal.SIGKILL)
    until(lambda: embedded.ensure_running() == ["Redis"])
    assert redis.Redis.from_url(embedded.redis_url(here)).get("key") is None, "nothing is kept, by intent"


def test_a_path_too_long_for_a_socket_works(spare):
    deep = spare / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    shutil.move(spare / "postgres", deep)
    sockets = paths.socket_dir(deep)
    assert sockets != paths.run_dir(deep) and len(str(sockets)) < 40
    process = attached(hold(deep))
    assert query(embedded.app_url(deep), "SELECT 1") == [(1,)]
    assert redis.Redis.from_url(embedded.redis_url(deep)).ping()
    assert sockets.stat().st_mode & 0o777 == 0o700
    leave(process)
    shutil.rmtree(sockets)


@pytest.mark.parametrize("name", ["a directory, with 'signs' & ümlauts", "100% [x]?y#z"])
def test_a_path_with_odd_signs_works(spare, name):
    odd = spare / name
    odd.mkdir()
    shutil.move(spare / "postgres", odd)
    process = attached(hold(odd))
    assert query(embedded.owner_url(odd), "SELECT 1") == [(1,)]
    assert redis.Redis.from_url(embedded.redis_url(odd)).ping()
    leave(process)


def test_a_url_in_the_environment_means_no_server_is_started(spare):
    program = [
        sys.executable,
        "-c",
        "from ragsite import embedded; embedded.attach(); print(embedded.managed())",
    ]
    env = environment(spare, DATABASE_URL="postgresql://elsewhere/x", REDIS_URL="redis://elsewhere")
    done = subprocess.run(program, env=env, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n")
    assert not {"run", "logs"} & {p.name for p in spare.iterdir()}, "not even a directory is made"


@pytest.mark.parametrize("where", ["file/below", "/proc/nowhere"])
def test_an_unwritable_directory_is_one_line(tmp_path, where):
    (tmp_path / "file").touch()
    env = environment(tmp_path / where)
    done = subprocess.run(
        [sys.executable, "manage.py", "migrate"], env=env, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / where) in done.stderr and "RAGSITE_DATA_DIR" in done.stderr


def test_a_database_without_tables_is_one_line(here):
    done = subprocess.run(
        [sys.executable, "manage.py", "apikey", "create", "--name", "early"],
        env=environment(here),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ragsite: the database's tables are not those of this version")
    assert "Traceback" not in done.stderr


def test_a_cluster_of_another_release_is_one_line(spare):
    (spare / "postgres" / "PG_VERSION").write_text("12\n")
    process = hold(spare)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "was made by PostgreSQL 12, this is 18" in errors


def test_a_server_that_does_not_start_is_told_with_the_last_line_of_its_log(spare):
    with (spare / "postgres" / "postgresql.conf").open("a") as conf:
        conf.write("shared_buffers = 'plenty'\n")
    process = hold(spare)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "PostgreSQL did not start" in errors and "postgres.log" in errors
    assert running(spare) == (False, False)


def test_the_roles_and_the_database_are_as_promised(here):
    owner, app = embedded.owner_url(here), embedded.app_url(here)
    roles = query(
        owner,
        "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname LIKE 'ragsite%' ORDER BY 1",
    )
    assert roles == [("ragsite_app", False, False, False), ("ragsite_owner", False, False, True)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        query(app, "CREATE TABLE public.mine ()")
    query(owner, "CREATE TABLE public.theirs ()")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        query(app, "SELECT FROM public.theirs")
    extensions = {name for (name,) in query(app, "SELECT extname FROM pg_extension")}
    assert {"vector", "pg_trgm", "unaccent", "btree_gin"} <= extensions
    assert query(app, "SELECT proleakproof FROM pg_proc WHERE proname = 'ts_match_vq'") == [(True,)]
    encoding = (
        "SELECT pg_encoding_to_char(encoding), datlocprovider, datlocale"
        " FROM pg_database WHERE datname = current_database()"
    )
    assert query(app, encoding) == [("UTF8", "b", "C.UTF-8")]


def test_bootstrap_may_run_again(here):
    query(embedded.superuser_url(here), "ALTER ROLE ragsite_app CREATEROLE")
    embedded.bootstrap(embedded.superuser_url(here), app_password="s3cret")
    assert query(embedded.app_url(here), "SELECT rolcreaterole FROM pg_roles WHERE rolname = 'ragsite_app'") == [
        (False,)
    ]


def test_nobody_else_reaches_the_servers(here):
    listening = query(embedded.app_url(here), "SHOW listen_addresses")
    assert listening == [("",)]
    server = psutil.Process(postmasters(here)[0])
    sockets = server.net_connections("inet") if hasattr(server, "net_connections") else server.connections("inet")
    assert sockets == []
    for private in ("run", "logs", "postgres", "redis"):
        assert (here / private).stat().st_mode & 0o777 == 0o700
