-- name: space_builds_due
SELECT tenant_id, id FROM space_builds_due()

-- name: space_uses
-- Of all tenants together: how many collections a space serves, is the second one of, and is being built for.
SELECT serving, second, building FROM space_uses() WHERE space_id = %(space)s

-- name: keep_index
-- Until this transaction ends nobody takes the space's vector index away for a load (spaces.begin_filling).
SELECT pg_advisory_xact_lock_shared(hashtextextended('filling ' || %(space)s::text, 0))

-- name: clear_stage_vectors
-- Of what is on its way: they were made for other spaces than the collection has now.
UPDATE documents_stagedchunk s SET embedding = NULL, second_embedding = NULL
FROM documents_document d
WHERE d.id = s.document_id AND d.collection_id = %(collection)s AND s.embedding IS NOT NULL

-- name: chunks_without_vector
-- The next in the order of documents, whose first one may have been left in the middle.
SELECT c.document_id, c.chunk_id, c.sha256, c.text
FROM documents_chunk c
WHERE c.collection_id = %(collection)s AND c.document_id >= %(after)s
  AND NOT EXISTS (SELECT 1 FROM {table} e WHERE e.document_id = c.document_id AND e.chunk_id = c.chunk_id)
ORDER BY c.document_id LIMIT %(limit)s

-- name: add_vectors
-- To chunks whose documents are locked: live or retired as they are now, and not at all where they have been erased.
INSERT INTO {table} (document_id, chunk_id, tenant_id, collection_id, live, embedding)
SELECT c.document_id, c.chunk_id, c.tenant_id, c.collection_id, c.retired_in_version IS NULL, v.embedding
FROM documents_chunk c
JOIN unnest(%(documents)b::uuid[], %(chunks)b::uuid[], %(embeddings)b::{type}[]) AS v (document_id, chunk_id, embedding)
  ON c.document_id = v.document_id AND c.chunk_id = v.chunk_id
ON CONFLICT (document_id, chunk_id) DO NOTHING

-- name: build_again
-- Something was published without a vector in the space: its build walks through all chunks once more, because
-- `embedded_before` is not what it has embedded. Whoever works on it goes on. One that was over begins anew, and nobody
-- asks the model that has just failed before it is due.
UPDATE documents_spacebuild SET
    state = 'running', embedded_before = -1,
    finished_at = CASE WHEN state <> 'cancelled' THEN finished_at END,
    fence = fence + CASE WHEN state = 'running' THEN 0 ELSE 1 END,
    cursor = CASE WHEN state = 'running' THEN cursor END,
    lease_until = CASE WHEN state = 'running' THEN lease_until ELSE %(due)s::timestamptz END
WHERE id = (
    SELECT id FROM documents_spacebuild WHERE collection_id = %(collection)s AND space_id = %(space)s
    ORDER BY created_at DESC LIMIT 1
)

-- name: coverage
-- A collection's chunks, and those that have a vector, which is live where they are.
SELECT count(*), count(e.chunk_id) FILTER (WHERE e.live = (c.retired_in_version IS NULL))
FROM documents_chunk c LEFT JOIN {table} e ON e.document_id = c.document_id AND e.chunk_id = c.chunk_id
WHERE c.collection_id = %(collection)s
