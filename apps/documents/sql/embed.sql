-- name: any_known
-- Most texts are new: this costs half of what known_vectors does.
SELECT EXISTS (SELECT 1 FROM documents_chunk WHERE tenant_id = %(tenant)s AND sha256 = ANY(%(sha256s)b))

-- name: known_vectors
-- One embedding per distinct text of a tenant: vectors that chunks with the same text have already, live or retired.
SELECT DISTINCT ON (c.sha256) c.sha256, vector_send(e.embedding::vector)
FROM documents_chunk c JOIN {table} e ON e.document_id = c.document_id AND e.chunk_id = c.chunk_id
WHERE c.tenant_id = %(tenant)s AND c.sha256 = ANY(%(sha256s)b)

-- name: pending_texts
-- New chunks without a vector, of several documents at once, up to a bound.
SELECT s.document_id, s.version, s.ordinal, s.sha256, s.text
FROM documents_stagedchunk s
JOIN {held}
  ON s.document_id = held.document_id AND s.version = held.version
WHERE NOT s.kept AND s.embedding IS NULL
LIMIT %(limit)s

-- name: store_vectors
UPDATE documents_stagedchunk s SET {staged} = v.embedding
FROM unnest(%(documents)b::uuid[], %(versions)b::bigint[], %(ordinals)b::int[], %(embeddings)b::vector[])
     AS v (document_id, version, ordinal, embedding)
WHERE s.document_id = v.document_id AND s.version = v.version AND s.ordinal = v.ordinal
