-- name: lock_document
SELECT version, live_version, deleted_version FROM documents_document WHERE id = %(document)s FOR UPDATE

-- name: insert_chunks
-- (The alias is for Citus, which asks its shards for the column of a table that is not called so there.)
INSERT INTO documents_chunk AS c
    (document_id, chunk_id, tenant_id, collection_id, text, sha256, tokens, heading_path, live_from_version, live_from, tsv)
SELECT document_id, chunk_id, tenant_id, %(collection)s, text, sha256, tokens, heading_path, version, %(now)s,
       to_tsvector(%(language)s::regconfig, text)
FROM documents_stagedchunk
WHERE document_id = %(document)s AND version = %(version)s AND NOT kept
RETURNING c.tokens

-- name: insert_embeddings
-- Only new chunks reach the vector index (invariant I9).
INSERT INTO {table} (document_id, chunk_id, tenant_id, collection_id, live, embedding)
SELECT document_id, chunk_id, tenant_id, %(collection)s, true, embedding::{type}
FROM documents_stagedchunk
WHERE document_id = %(document)s AND version = %(version)s AND NOT kept

-- name: retire_chunks
UPDATE documents_chunk c SET retired_in_version = %(version)s, retired_at = %(now)s
WHERE c.document_id = %(document)s AND c.retired_in_version IS NULL AND c.live_from_version < %(version)s
  AND NOT EXISTS (
      SELECT 1 FROM documents_stagedchunk s
      WHERE s.document_id = %(document)s AND s.version = %(version)s AND s.kept AND s.chunk_id = c.chunk_id
  )
RETURNING c.chunk_id, c.tokens

-- name: retire_embeddings
UPDATE {table} SET live = false WHERE document_id = %(document)s AND live AND chunk_id = ANY(%(chunks)s)

-- name: place_chunks
-- Where each chunk stands in this version; also under the higher numbers of the same content.
UPDATE documents_documentversion v SET
    chunk_ids = p.chunk_ids, starts = p.starts, ends = p.ends, published_at = %(now)s
FROM (
    SELECT array_agg(chunk_id ORDER BY ordinal) AS chunk_ids, array_agg(start ORDER BY ordinal) AS starts,
           array_agg("end" ORDER BY ordinal) AS ends
    FROM documents_stagedchunk WHERE document_id = %(document)s AND version = %(version)s
) p
WHERE v.document_id = %(document)s AND (v.version = %(version)s OR v.same_as = %(version)s)

-- name: set_live
-- Invariants I1 and I2 in one statement: one live version, never a lower one, never one that was deleted. It is the
-- highest number under which this content was accepted.
UPDATE documents_document d SET
    live_version = v.live,
    title = CASE WHEN d.title = '' THEN v.title ELSE d.title END,
    state = CASE WHEN d.version = v.live THEN 'live' WHEN d.state = 'failed' THEN 'stale' ELSE d.state END,
    pending_since = CASE WHEN d.version = v.live THEN NULL ELSE d.pending_since END,
    error = CASE WHEN d.version = v.live THEN NULL ELSE d.error END,
    updated_at = %(now)s
FROM (
    SELECT max(version) AS live, max(title) AS title FROM documents_documentversion
    WHERE document_id = %(document)s AND (version = %(version)s OR same_as = %(version)s)
) v
WHERE d.id = %(document)s AND coalesce(d.live_version, 0) < v.live AND coalesce(d.deleted_version, 0) < v.live
  AND d.deleted_at IS NULL
RETURNING d.version, d.live_version, d.state

-- name: bump_epoch
-- Last, because it is the row that every publish of a collection waits for.
UPDATE documents_collection SET
    epoch = epoch + 1, documents = documents + %(documents)s, chunks = chunks + %(chunks)s, tokens = tokens + %(tokens)s
WHERE id = %(collection)s
