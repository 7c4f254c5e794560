-- name: prewarm_installed
SELECT to_regprocedure('pg_prewarm(regclass, text, text, bigint, bigint)') IS NOT NULL

-- name: to_prewarm
-- The relations that searches read, what matters most first: vector indexes, other indexes, tables.
WITH leaves AS (
    SELECT t.relid, root.place
    FROM unnest(%(tables)s::text[]) WITH ORDINALITY AS root (name, place), LATERAL pg_partition_tree(root.name::regclass) t
    WHERE t.isleaf
)
SELECT relation::regclass::text, pg_relation_size(relation)
FROM (
    SELECT i.indexrelid AS relation, CASE WHEN a.amname IN ('hnsw', 'ivfflat') THEN 0 ELSE 1 END AS rank, l.place
    FROM leaves l JOIN pg_index i ON i.indrelid = l.relid
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
    UNION ALL
    SELECT relid, 2, place FROM leaves
) found
WHERE pg_relation_size(relation) > 0
ORDER BY rank, place, relation

-- name: prewarm
SELECT pg_prewarm(%(relation)s::regclass)

-- name: shared_buffers
SELECT pg_size_bytes(current_setting('shared_buffers'))
