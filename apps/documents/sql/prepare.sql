-- name: superseded
-- A newer version has been accepted and has not failed: this one need not be prepared.
SELECT EXISTS (
    SELECT 1 FROM documents_documentversion v
    WHERE v.document_id = %(document)s AND v.version > %(version)s AND v.error IS NULL
      AND v.same_as IS DISTINCT FROM %(version)s
)

-- name: live_chunks
-- What the new version is compared with.
SELECT c.chunk_id, c.sha256, c.heading_path
FROM documents_chunk c
WHERE c.document_id = %(document)s AND c.retired_in_version IS NULL
ORDER BY c.chunk_id

-- name: blob
-- The original bytes, part by part.
SELECT data FROM documents_blob WHERE document_id = %(document)s AND version = %(version)s ORDER BY part

-- name: keep_text
-- The normalised text, once: also for the higher numbers under which the same content was sent again.
UPDATE documents_documentversion SET
    text = %(text)s, characters = %(characters)s, title = %(title)s, parser = %(parser)s, chunker = %(chunker)s,
    media_type = %(media_type)s
WHERE document_id = %(document)s AND (version = %(version)s OR same_as = %(version)s)

-- name: clear_stage
DELETE FROM documents_stagedchunk WHERE document_id = %(document)s AND version = %(version)s

-- name: stage
-- Chunks of a version on their way: arrays of one value per chunk. The document's row says which shard they go to: a
-- plain INSERT .. SELECT FROM unnest would become a COPY on Citus, which row-level security refuses.
INSERT INTO documents_stagedchunk
    (document_id, version, tenant_id, ordinal, chunk_id, kept, start, "end", text, sha256, tokens, heading_path,
     embedding)
SELECT d.id, %(version)s, %(tenant)s, s.ordinal, s.chunk_id, s.kept, s.start, s."end", s.text, s.sha256, s.tokens,
       ARRAY(SELECT jsonb_array_elements_text(s.heading_path)), s.embedding::vector
FROM documents_document d,
     unnest(%(ordinals)s::int[], %(chunk_ids)s::uuid[], %(kept)s::bool[], %(starts)s::int[], %(ends)s::int[],
            %(texts)s::text[], %(sha256s)s::bytea[], %(tokens)s::int[], %(heading_paths)s::jsonb[],
            %(embeddings)s::text[])
     AS s (ordinal, chunk_id, kept, start, "end", text, sha256, tokens, heading_path, embedding)
WHERE d.id = %(document)s

-- name: processing
UPDATE documents_document SET state = 'processing'
WHERE id = %(document)s AND version = %(version)s AND state = 'pending'
