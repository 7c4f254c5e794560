"""What only the catalogs of the partitions, or of a cluster's shards, tell."""

from __future__ import annotations

from django.db import connections

from apps.documents.engines import Part, engine_for

INDEX = """
SELECT pg_relation_filenode(i.oid) || ' ' || coalesce(array_to_string(i.reloptions, ','), '')
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam
WHERE x.indrelid = '%s'::regclass AND a.amname IN ('hnsw', 'ivfflat')
"""


def parts_of(table: str) -> list[Part]:
    """Of a space's table, as its owner sees them."""
    owner = connections["owner"]
    return engine_for(owner).parts(owner, table)


def indexes_of(table: str) -> list[tuple[int, str]]:
    """The vector index of each part, in their order: (its file, its options). Each has one, and none that is not valid
    beside it."""
    parts = parts_of(table)
    with connections["owner"].cursor() as cursor:
        if parts[0].node:
            cursor.execute("SELECT result FROM run_command_on_shards(%s, %s) ORDER BY shardid", [table, INDEX])
            answers = [[row] for row in cursor.fetchall()]
        else:
            answers = []
            for part in parts:
                cursor.execute(INDEX % part.name)
                answers.append(cursor.fetchall())
    found = [(int(file), options) for answer in answers for file, _, options in [answer[0][0].partition(" ")]]
    assert [len(answer) for answer in answers] == [1] * len(parts) and not any(part.broken for part in parts)
    return found
