"""A node of a Citus cluster, asked by itself: for searches that take what there is while another is away.

A node is a Postgres that has some shards. `snapshot_of` is a transaction on it in which the names of the sharded tables
stand for what it has of them (temporary views), so that the statements of one Postgres run there as they are. The
shards are behind the tenants' wall like the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from django.db import OperationalError

from apps.access import tenancy
from apps.access.nodes import Node, connected, leave
from apps.access.sql import database, execute, reading_from

#: On a node, of the tables that are spread over all: the names of its shards of each.
OWN_SHARDS = """
SELECT c.relname, array_agg(shard_name(s.logicalrelid, s.shardid) ORDER BY s.shardid)
FROM pg_dist_partition d JOIN pg_class c ON c.oid = d.logicalrelid
JOIN pg_dist_shard s ON s.logicalrelid = d.logicalrelid JOIN pg_dist_placement p ON p.shardid = s.shardid
WHERE d.partmethod = 'h' AND (NOT starts_with(c.relname::text, 'embedding_') OR c.relname = ANY(%(spaces)s))
  AND p.groupid = (SELECT groupid FROM pg_dist_local_group)
GROUP BY c.relname
"""


@contextmanager
def snapshot_of(node: Node, tenant_id: UUID, spaces: Sequence[str]) -> Iterator[None]:
    """`tenancy.snapshot` of what this node has; spaces: the tables of the embedding spaces that will be asked for.
    Raises Away when it does not answer, or no longer."""
    wrapper = connected(node)
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
            raise leave(node) from error
        raise
    finally:
        wrapper.close()
