-- name: lock_documents
SELECT id, live_version, live_revision, deleted_version FROM documents_document
WHERE id = ANY(%(documents)b) ORDER BY id FOR UPDATE

-- name: insert_chunks
-- (The alias is for Citus, which asks its shards for the column of a table that is not called so there.)
INSERT INTO documents_chunk AS c
    (document_id, chunk_id, tenant_id, collection_id, text, sha256, tokens, heading_path, live_from_version, live_from,
     tsv)
SELECT s.document_id, s.chunk_id, s.tenant_id, %(collection)s, s.text, s.sha256, s.tokens, s.heading_path, s.version,
       %(now)s, {tsv}
FROM documents_stagedchunk s JOIN {held} ON s.document_id = held.document_id AND s.version = held.version
WHERE NOT s.kept
RETURNING c.tokens

-- name: insert_embeddings
-- Only new chunks reach the vector index (invariant I9). Their vectors come along, or wait on the stage. In a second
-- space, which need not be complete, some may be missing.
INSERT INTO {table} (document_id, chunk_id, tenant_id, collection_id, live, embedding)
SELECT s.document_id, s.chunk_id, s.tenant_id, %(collection)s, true, coalesce(v.embedding, s.{staged}::{type})
FROM documents_stagedchunk s JOIN {held} ON s.document_id = held.document_id AND s.version = held.version
LEFT JOIN unnest(%(sha256s)b::bytea[], %(embeddings)b::{type}[]) AS v (sha256, embedding) ON v.sha256 = s.sha256
WHERE NOT s.kept AND (%(complete)s OR coalesce(v.embedding, s.{staged}::{type}) IS NOT NULL)

-- name: kept_chunks
SELECT s.chunk_id FROM documents_stagedchunk s JOIN {held} ON s.document_id = held.document_id AND s.version = held.version
WHERE s.kept

-- name: retire_chunks
-- Before the new ones come, which a reindex brings under the same version. The ids that stay are sent: joined with the
-- stage, of whose size Postgres knows nothing, each live chunk would be compared with each staged one.
UPDATE documents_chunk c SET retired_in_version = held.version, retired_at = %(now)s
FROM {held}
WHERE c.document_id = held.document_id AND c.retired_in_version IS NULL
  AND c.chunk_id <> ALL(%(kept)b::uuid[])
RETURNING c.document_id, c.chunk_id, c.tokens

-- name: retire_embeddings
UPDATE {table} e SET live = false
FROM unnest(%(documents)b::uuid[], %(chunks)b::uuid[]) AS r (document_id, chunk_id)
WHERE e.document_id = r.document_id AND e.chunk_id = r.chunk_id AND e.live

-- name: place_chunks
-- Where each chunk stands in this version; also under the higher numbers of the same content.
UPDATE documents_documentversion v SET
    chunk_ids = p.chunk_ids, starts = p.starts, ends = p.ends, published_at = coalesce(v.published_at, %(now)s)
FROM (
    SELECT s.document_id, s.version, array_agg(s.chunk_id ORDER BY s.ordinal) AS chunk_ids,
           array_agg(s.start ORDER BY s.ordinal) AS starts, array_agg(s."end" ORDER BY s.ordinal) AS ends
    FROM documents_stagedchunk s JOIN {held} ON s.document_id = held.document_id AND s.version = held.version
    GROUP BY s.document_id, s.version
) p
WHERE v.document_id = p.document_id AND v.document_id = ANY(%(documents)b)
  AND (v.version = p.version OR v.same_as = p.version)

-- name: set_live
-- Invariants I1 and I2 in one statement: one live version, never a lower one, never one that was deleted. It is the
-- highest number under which this content was accepted.
UPDATE documents_document d SET
    live_version = v.live,
    live_revision = 0,
    title = CASE WHEN d.given_title = '' THEN v.title ELSE d.given_title END,
    state = CASE WHEN d.version = v.live THEN 'live' WHEN d.state = 'failed' THEN 'stale' ELSE d.state END,
    pending_since = CASE WHEN d.version = v.live THEN NULL ELSE d.pending_since END,
    error = CASE WHEN d.version = v.live THEN NULL ELSE d.error END,
    updated_at = %(now)s
FROM (
    SELECT same.document_id, max(same.version) AS live, max(same.title) AS title
    FROM documents_documentversion same JOIN {held}
      ON same.document_id = held.document_id AND (same.version = held.version OR same.same_as = held.version)
    GROUP BY same.document_id
) v
WHERE d.id = v.document_id AND d.id = ANY(%(documents)b) AND d.deleted_at IS NULL
  AND coalesce(d.live_version, 0) < v.live AND coalesce(d.deleted_version, 0) < v.live
RETURNING d.id, d.live_version, d.state

-- name: bump_epoch
-- Last, because it is the row that every publish of a collection waits for.
UPDATE documents_collection SET
    epoch = epoch + 1, documents = documents + %(documents)s, chunks = chunks + %(chunks)s, tokens = tokens + %(tokens)s
WHERE id = %(collection)s
