"""The nodes of a Citus cluster, each asked by itself: for searches that take what there is while one of them is away.

A node is a Postgres that has some shards. `snapshot` is a transaction on one in which the names of the sharded tables
stand for what it has of them (temporary views), so that the statements of one Postgres run there as they are. The
shards are behind the tenants' wall like the tables.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, OperationalError, connections

from apps.access import tenancy
from apps.access.sql import database, execute, reading_from

from .citus import ANCHOR

CONNECT_SECONDS = 2  # libpq's least
#: A node that did not answer is not asked again for so many times as long as it was waited for, and at least so long.
PATIENCE, LEAST_SECONDS = 5, 0.5

HOLDERS = """
SELECT n.nodename, n.nodeport, count(*)
FROM pg_dist_shard s JOIN pg_dist_placement p USING (shardid)
JOIN pg_dist_node n ON n.groupid = p.groupid AND n.noderole = 'primary'
WHERE s.logicalrelid = to_regclass(%(anchor)s) GROUP BY n.nodename, n.nodeport ORDER BY n.nodename, n.nodeport
"""
#: On a node, of the tables that are spread over all: the names of its shards of each.
OWN_SHARDS = """
SELECT c.relname, array_agg(shard_name(s.logicalrelid, s.shardid) ORDER BY s.shardid)
FROM pg_dist_partition d JOIN pg_class c ON c.oid = d.logicalrelid
JOIN pg_dist_shard s ON s.logicalrelid = d.logicalrelid JOIN pg_dist_placement p ON p.shardid = s.shardid
WHERE d.partmethod = 'h' AND (NOT starts_with(c.relname::text, 'embedding_') OR c.relname = ANY(%(spaces)s))
  AND p.groupid = (SELECT groupid FROM pg_dist_local_group)
GROUP BY c.relname
"""


class Away(OperationalError):
    """A node does not answer."""


_away: dict[str, float] = {}  # nodes that did not answer, by alias: when to ask them again, by time.monotonic


@dataclass(frozen=True, slots=True)
class Node:
    """shards: how many of each sharded table it has."""

    host: str
    port: int
    shards: int

    @property
    def alias(self) -> str:
        return f"node {self.host}:{self.port}"


def holders() -> list[Node]:
    """The nodes that have shards, as the coordinator knows them."""
    return [Node(*row) for row in execute(HOLDERS, {"anchor": ANCHOR}).fetchall()]


def any_away() -> bool:
    """Has a node not answered, and not been heard of since? (The cluster as a whole would be waited for longer.)"""
    return bool(_away)


@contextmanager
def reachable(nodes: Sequence[Node]) -> Iterator[list[Node]]:
    """Those that answer, with a connection to each for its first snapshot."""
    answering = []
    for alias in _away.keys() - {node.alias for node in nodes}:
        _away.pop(alias, None)  # it has no shards any more
    try:
        for node in nodes:
            began = time.monotonic()
            if _away.get(node.alias, 0) > began:
                continue
            if node.alias in _away:  # one of all searches asks
                _away[node.alias] = began + PATIENCE * CONNECT_SECONDS
            _introduce(node)
            try:
                connections[node.alias].ensure_connection()
            except OperationalError:
                _leave(node, waited=time.monotonic() - began)
            else:
                _away.pop(node.alias, None)
                answering.append(node)
        yield answering
    finally:
        for node in answering:
            connections[node.alias].close()


@contextmanager
def snapshot(node: Node, tenant_id: UUID, spaces: Sequence[str]) -> Iterator[None]:
    """`tenancy.snapshot` of what this node has; spaces: the tables of the embedding spaces that will be asked for.
    Raises Away when it does not answer, or no longer."""
    _introduce(node)
    wrapper = connections[node.alias]
    try:
        with reading_from(node.alias), tenancy.snapshot(tenant_id):
            shards = execute(OWN_SHARDS, {"spaces": list(spaces)}).fetchall()
            session = database().connection
            session.execute("SET LOCAL citus.enable_ddl_propagation = off", prepare=False)
            for table, names in shards:
                parts = " UNION ALL ".join(f"TABLE {name}" for name in names)
                session.execute(f'CREATE OR REPLACE TEMP VIEW "{table}" AS {parts}', prepare=False)
            yield
    except OperationalError as error:
        if wrapper.connection is None or wrapper.connection.closed:
            raise _leave(node) from error
        raise
    finally:
        wrapper.close()


def _leave(node: Node, *, waited: float = 0) -> Away:
    _away[node.alias] = time.monotonic() + max(LEAST_SECONDS, PATIENCE * waited)
    return Away(f"{node.alias} does not answer")


def _introduce(node: Node) -> None:
    """Let Django connect to it, as it does to the coordinator, but without a pool: a node that is back, or has gone, is
    to be noticed with the next connection."""
    if node.alias not in connections.databases:
        same = connections[DEFAULT_DB_ALIAS].settings_dict
        options = {name: value for name, value in same["OPTIONS"].items() if name != "pool"}
        own = {"HOST": node.host, "PORT": node.port, "OPTIONS": options | {"connect_timeout": CONNECT_SECONDS}}
        connections.databases[node.alias] = {**same, **own}
