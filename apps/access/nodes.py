"""The nodes of a Citus cluster: which have shards, which of those answer.

Whether one is away is found out by connecting to it, and kept, so that not everybody waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import DEFAULT_DB_ALIAS, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.errors import ConnectionTimeout

from .cutoff import CutOff, within
from .sql import execute, reading_from

CONNECT_SECONDS = 2  # libpq's least
#: A node that did not answer is not asked again for so many times as long as it was waited for, and at least so long.
PATIENCE, LEAST_SECONDS = 5, 0.5
COORDINATOR = "coordinator"  # the alias of a connection that is not of the pool, which may be used up

#: All tables that are spread over the nodes are spread alike.
HOLDERS = """
SELECT n.nodename, n.nodeport, count(*)
FROM pg_dist_shard s JOIN pg_dist_placement p USING (shardid)
JOIN pg_dist_node n ON n.groupid = p.groupid AND n.noderole = 'primary'
WHERE s.logicalrelid = (SELECT min(logicalrelid) FROM pg_dist_partition WHERE partmethod = 'h')
GROUP BY n.nodename, n.nodeport ORDER BY n.nodename, n.nodeport
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
    return [Node(*row) for row in execute(HOLDERS, {}).fetchall()]


def any_away() -> bool:
    """Has a node not answered, and not been heard of since? (The cluster as a whole would be waited for longer.)"""
    return bool(_away)


def all_answer() -> bool:
    """Does every node answer, and the coordinator? For any thread; waits for CONNECT_SECONDS for each that does not,
    twice for a coordinator that hangs once it is connected."""
    if any(until > time.monotonic() for until in list(_away.values())):
        return False
    _introduce(COORDINATOR, {})
    try:
        connections[COORDINATOR].ensure_connection()
        with reading_from(COORDINATOR), within(connections[COORDINATOR].connection, CONNECT_SECONDS):
            nodes = holders()
    except CutOff:
        return False
    except OperationalError as error:  # one that refuses also ends what waits for it
        return not isinstance(error.__cause__, ConnectionTimeout)
    finally:
        connections[COORDINATOR].close()
    with reachable(nodes) as there:
        return len(there) == len(nodes)


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
            try:
                connected(node).ensure_connection()
            except OperationalError:
                leave(node, waited=time.monotonic() - began)
            else:
                _away.pop(node.alias, None)
                answering.append(node)
        yield answering
    finally:
        for node in answering:
            connections[node.alias].close()


def connected(node: Node) -> BaseDatabaseWrapper:
    """Django's connection to a node."""
    _introduce(node.alias, {"HOST": node.host, "PORT": node.port})
    return connections[node.alias]


def leave(node: Node, *, waited: float = 0) -> Away:
    """It is away from now on; it is asked again after some times as long as it was `waited` for (seconds)."""
    _away[node.alias] = time.monotonic() + max(LEAST_SECONDS, PATIENCE * waited)
    return Away(f"{node.alias} does not answer")


def _introduce(alias: str, own: dict[str, Any]) -> None:
    """Let Django connect to it, as it does to the coordinator, but without a pool: a node that is back, or has gone, is
    to be noticed with the next connection; and who asks for nodes does not wait for those who wait for them."""
    if alias not in connections.databases:
        same = connections[DEFAULT_DB_ALIAS].settings_dict
        options = {name: value for name, value in same["OPTIONS"].items() if name != "pool"}
        limited = {"OPTIONS": options | {"connect_timeout": CONNECT_SECONDS}}
        connections.databases[alias] = {**same, **own, **limited}
