"""The nodes of a Citus cluster as an operator sees them: which there are, one more, and shards moved so that each has
its share. Searches and writes go on meanwhile: a shard is copied, what is written meanwhile follows by logical
replication, and only the last moment of that holds writes to it up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import InterfaceError, OperationalError, connections
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .engines import engine_for
from .engines.citus import ANCHOR

EXTENSIONS = ("vector", "btree_gin")  # beside citus itself: what migrations need on every node
POLL_SECONDS = 1.0

Told = Callable[[str], None]

NODES = """
SELECT n.nodeid, n.nodename, n.nodeport, n.groupid = 0, n.shouldhaveshards, n.isactive,
       (SELECT count(*) FROM pg_dist_placement p JOIN pg_dist_shard s USING (shardid)
        WHERE p.groupid = n.groupid AND s.logicalrelid = to_regclass(%s))
FROM pg_dist_node n WHERE n.noderole = 'primary' ORDER BY n.groupid
"""
#: Asked of each node by Citus (which formats it: no percent sign).
ABOUT_A_NODE = """
SELECT json_build_object(
    'postgres', current_setting('server_version'), 'wal_level', current_setting('wal_level'),
    'citus', (SELECT extversion FROM pg_extension WHERE extname = 'citus'),
    'vector', (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
    'bytes', (SELECT coalesce(sum(pg_total_relation_size(to_regclass(shard_name(s.logicalrelid, s.shardid)))), 0)
              FROM pg_dist_shard s JOIN pg_dist_placement p USING (shardid)
              JOIN pg_dist_partition d ON d.logicalrelid = s.logicalrelid AND d.partmethod = 'h'
              WHERE p.groupid = (SELECT groupid FROM pg_dist_local_group)))
"""
#: Sharded tables whose owner is behind their wall: it would copy no row of a shard that it moves (docs/adr/0017).
FORCED = """
SELECT c.relname FROM pg_dist_partition d JOIN pg_class c ON c.oid = d.logicalrelid
WHERE d.partmethod = 'h' AND c.relrowsecurity AND c.relforcerowsecurity ORDER BY c.relname
"""


class NotPossible(Exception):
    """Why it is not done, in a sentence for an operator."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """shards: of each sharded table; bytes: of all shards with their indexes. problem: why nothing is known of it."""

    host: str
    port: int
    is_coordinator: bool
    takes_shards: bool
    is_active: bool
    shards: int
    bytes: int = 0
    postgres: str = ""
    citus: str = ""
    vector: str = ""
    wal_level: str = ""
    problem: str = ""


def status(*, using: str = "owner") -> list[NodeStatus]:
    """The coordinator first. Raises NotPossible on one Postgres."""
    _need_cluster(using)
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT nodeid, success, result FROM run_command_on_all_nodes(%s)", [ABOUT_A_NODE])
        told = {node: (success, result) for node, success, result in cursor.fetchall()}
        cursor.execute(NODES, [ANCHOR])
        found = []
        for node, *known in cursor.fetchall():
            success, result = told.get(node, (False, "not asked"))
            about: dict[str, Any] = json.loads(result) if success else {"problem": str(result).splitlines()[0]}
            found.append(NodeStatus(*known, **about))
        return found


def moving(*, using: str = "owner") -> dict[str, Any] | None:
    """The last rebalance as Citus tells it: {state, tasks: [...], task_state_counts}; None where there was none."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT state, details FROM citus_rebalance_status()")
        row = cursor.fetchone()
    return None if row is None else {"state": row[0]} | (json.loads(row[1]) if isinstance(row[1], str) else row[1])


def add_node(host: str, port: int, *, superuser_url: str, using: str = "owner", told: Told = lambda _: None) -> None:
    """Prepare a server and make it a node of the cluster, as a superuser of both: the URL is the coordinator's. Nothing
    is moved to it yet. Again, where it was interrupted. Raises NotPossible."""
    _need_cluster(using)
    database = connections[using].settings_dict["NAME"]
    owner = connections[using].settings_dict["USER"]
    try:
        at = conninfo_to_dict(superuser_url)
    except psycopg.ProgrammingError:  # which repeats the URL, and with it the password
        raise NotPossible("The superuser's URL cannot be read: other signs than letters and digits as %XX.") from None
    here = make_conninfo("", **at | {"dbname": database})
    there = at | {"host": host, "port": str(port)}
    if any(node.is_coordinator and (node.host, node.port) == (host, port) for node in status(using=using)):
        raise NotPossible(f"{host}:{port} is the coordinator.")
    with _session(here, "the coordinator") as coordinator:
        if not _value(coordinator, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            raise NotPossible("Citus lets only a superuser add a node.")
        with _session(make_conninfo("", **there | {"dbname": "postgres"}), f"{host}:{port}") as server:
            _prepare_server(coordinator, server, database, owner, told)
        with _session(make_conninfo("", **there | {"dbname": database}), f"{host}:{port}") as node:
            _prepare_database(coordinator, node, told)
        try:
            coordinator.execute("SELECT citus_add_node(%s, %s)", [host, port])
        except psycopg.Error as error:
            raise NotPossible(f"Citus does not take {host}:{port}: {error}") from error
    shards = next(node.shards for node in status(using=using) if (node.host, node.port) == (host, port))
    has = f"{shards} shards of each table" if shards else "no shards yet: manage.py shards rebalance"
    told(f"{host}:{port} is a node of the cluster, and has {has}")


def rebalance(*, block_writes: bool = False, using: str = "owner", told: Told = lambda _: None) -> int:
    """Move shards until each node has its share, and wait for it. Returns how many moves that took.

    Interrupted, it goes on by itself; called again, it waits for what goes on. block_writes: copy each shard while
    nobody writes to it, for nodes without `wal_level = logical`. Raises NotPossible.
    """
    nodes = status(using=using)
    silent = [f"{node.host}:{node.port}: {node.problem}" for node in nodes if node.problem]
    if silent:
        raise NotPossible("Not all nodes answer. " + "; ".join(silent))
    lacking = [f"{node.host}:{node.port}" for node in nodes if node.takes_shards and node.wal_level != "logical"]
    if lacking and not block_writes:
        raise NotPossible(f"wal_level is not logical on {', '.join(lacking)}: set it, or move with --block-writes.")
    with connections[using].cursor() as cursor:
        cursor.execute(FORCED)
        if forced := [row[0] for row in cursor.fetchall()]:
            raise NotPossible(
                f"The owner is behind the wall of {', '.join(forced)} and would copy no rows (ADR 17). For each:"
                " ALTER TABLE ... NO FORCE ROW LEVEL SECURITY"
            )
        going = moving(using=using)
        if going is None or going["state"] not in ("scheduled", "running"):
            mode = "block_writes" if block_writes else "auto"
            cursor.execute("SELECT citus_rebalance_start(shard_transfer_mode => %s)", [mode])
            if cursor.fetchone()[0] is None:
                told("each node has its share")
                return 0
    return _wait(using, told)


def stop(*, using: str = "owner") -> None:
    """End a rebalance: the shard that is being moved stays where it was."""
    _need_cluster(using)
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT citus_rebalance_stop()")


def _wait(using: str, told: Told) -> int:
    before = ""
    while True:
        try:
            job = moving(using=using) or {"state": "finished"}
            now = told_of(job)
        except (OperationalError, InterfaceError) as error:  # a node or the coordinator is away; the moves are not ours
            connections[using].close()
            job = {"state": "running"}
            now = f"it is not known how far it is: {str(error).splitlines()[0]}"
        if now != before:
            told(now)
            before = now
        if job["state"] == "finished":
            return sum((job.get("task_state_counts") or {}).values())
        if job["state"] not in ("scheduled", "running"):
            raise NotPossible(f"The rebalance is {job['state']}: {now}")
        time.sleep(POLL_SECONDS)


def told_of(job: dict[str, Any]) -> str:
    """How far a rebalance is."""
    counts = job.get("task_state_counts") or {}
    lines = [_line(task) for task in job.get("tasks") or []]
    return "; ".join([f"{counts.get('done', 0)} of {sum(counts.values())} moved", *lines])


def _line(task: dict[str, Any]) -> str:
    hosts, sizes = task.get("hosts") or {}, task.get("size") or {}
    parts = [f"{hosts.get('source', '?')} to {hosts.get('target', '?')}", str(task.get("phase") or task["state"])]
    if sizes:
        parts.append(f"{sizes.get('target', '?')} of {sizes.get('source', '?')}")
    if task.get("message"):
        parts.append(str(task["message"]).strip())
    return ", ".join(parts)


def _need_cluster(using: str) -> None:
    if engine_for(connections[using]).name != "citus":
        raise NotPossible("This is one Postgres and no Citus cluster: manage.py partitions tells of its tables.")


def _session(conninfo: str, whose: str) -> closing[psycopg.Connection]:
    try:
        return closing(psycopg.connect(conninfo, autocommit=True, connect_timeout=10))
    except psycopg.OperationalError as error:
        raise NotPossible(f"{whose} cannot be reached as a superuser: {str(error).strip()}") from error


def _value(session: psycopg.Connection, statement: str, *parameters: Any) -> Any:
    row = session.execute(statement, parameters).fetchone()
    return row[0] if row else None


def _prepare_server(
    coordinator: psycopg.Connection, server: psycopg.Connection, database: str, owner: str, told: Told
) -> None:
    """The owner's role, with the password that it has at the coordinator, and the database."""
    if "citus" not in str(_value(server, "SHOW shared_preload_libraries")):
        raise NotPossible("The new server does not load Citus: shared_preload_libraries = 'citus', and a restart.")
    ours, its = (_value(each, "SHOW server_version") for each in (coordinator, server))
    if str(ours).split(".")[0] != str(its).split(".")[0]:
        raise NotPossible(f"The cluster runs PostgreSQL {ours}, the new server {its}.")
    if not _value(server, "SELECT 1 FROM pg_roles WHERE rolname = %s", owner):
        secret = _value(coordinator, "SELECT rolpassword FROM pg_authid WHERE rolname = %s", owner)
        role = sql.SQL("CREATE ROLE {} LOGIN CREATEROLE").format(sql.Identifier(owner))
        server.execute(role + sql.SQL(" PASSWORD {}").format(sql.Literal(secret)) if secret else role)
        told(f"made the role {owner}")
    if not _value(server, "SELECT 1 FROM pg_database WHERE datname = %s", database):
        made = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), sql.Identifier(owner))
        server.execute(made)
        told(f"made the database {database}")


def _prepare_database(coordinator: psycopg.Connection, node: psycopg.Connection, told: Told) -> None:
    """The cluster's extensions, in its versions, and what `migrate` cannot declare (ADR 1)."""
    versions: dict[str, str] = dict(coordinator.execute("SELECT extname, extversion FROM pg_extension").fetchall())
    if not _value(node, "SELECT 1 FROM pg_extension WHERE extname = 'citus'"):
        node.execute("CREATE EXTENSION citus")
        told("made the extension citus")
    node.execute("SET citus.enable_ddl_propagation = off")
    for name in sorted({*EXTENSIONS, *versions} - {"citus", "citus_columnar", "plpgsql"}):
        if not _value(node, "SELECT 1 FROM pg_extension WHERE extname = %s", name):
            try:
                node.execute(sql.SQL("CREATE EXTENSION {}").format(sql.Identifier(name)))
            except psycopg.Error as error:
                raise NotPossible(f"The new server lacks the extension {name}: {error}") from error
            told(f"made the extension {name}")
    theirs: dict[str, str] = dict(node.execute("SELECT extname, extversion FROM pg_extension").fetchall())
    other = [
        f"{name} {theirs[name]}, not {versions[name]}" for name in ("citus", "vector") if theirs[name] != versions[name]
    ]
    if other:
        raise NotPossible(f"The new server has {'; '.join(other)}.")
    node.execute("ALTER FUNCTION pg_catalog.ts_match_vq(tsvector, tsquery) LEAKPROOF")
