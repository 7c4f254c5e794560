-- name: superseded
-- Of these, the documents of which a newer version has been accepted and has not failed: they need not be prepared.
SELECT DISTINCT v.document_id
FROM documents_documentversion v JOIN {held} ON v.document_id = held.document_id
WHERE v.version > held.version AND v.error IS NULL AND v.same_as IS DISTINCT FROM held.version

-- name: versions
SELECT v.document_id, v.declared_type, v.filename
FROM documents_documentversion v JOIN {held} ON v.document_id = held.document_id AND v.version = held.version

-- name: live_chunks
-- What the new version is compared with, in reading order: of equal chunks each keeps its place.
SELECT d.id, c.chunk_id, c.sha256, c.heading_path
FROM documents_document d
JOIN documents_documentversion v ON v.document_id = d.id AND v.version = d.live_version
CROSS JOIN LATERAL unnest(v.chunk_ids) WITH ORDINALITY AS p (chunk_id, ordinal)
JOIN documents_chunk c ON c.document_id = d.id AND c.chunk_id = p.chunk_id AND c.retired_in_version IS NULL
WHERE d.id = ANY(%(documents)b)
ORDER BY d.id, p.ordinal

-- name: blobs
-- The original bytes, part by part.
SELECT b.document_id, b.data
FROM documents_blob b JOIN {held} ON b.document_id = held.document_id AND b.version = held.version
ORDER BY b.document_id, b.part

-- name: keep_text
-- The normalised text, once: also for the higher numbers under which the same content was sent again.
UPDATE documents_documentversion v SET
    text = held.text, characters = length(held.text), title = held.title, parser = held.parser, chunker = %(chunker)s,
    media_type = held.media_type, page_starts = string_to_array(held.page_starts, ',')::int[],
    page_numbers = string_to_array(held.page_numbers, ',', 'NULL')::int[], notes = held.notes::jsonb
FROM unnest(%(documents)b::uuid[], %(versions)b::bigint[], %(texts)b::text[], %(titles)b::text[], %(parsers)b::text[],
            %(media_types)b::text[], %(page_starts)b::text[], %(page_numbers)b::text[], %(notes)b::text[])
     AS held (document_id, version, text, title, parser, media_type, page_starts, page_numbers, notes)
WHERE v.document_id = held.document_id AND (v.version = held.version OR v.same_as = held.version)

-- name: clear_stage
DELETE FROM documents_stagedchunk s
USING {held}
WHERE s.document_id = held.document_id AND s.version = held.version

-- name: stage
-- Chunks on their way: arrays of one value per chunk. The document's row says which shard they go to: a plain
-- INSERT .. SELECT FROM unnest would become a COPY on Citus, which row-level security refuses.
INSERT INTO documents_stagedchunk
    (document_id, version, tenant_id, ordinal, chunk_id, kept, start, "end", text, words, sha256, tokens, heading_path)
SELECT d.id, s.version, d.tenant_id, s.ordinal, s.chunk_id, s.kept, s.start, s."end", s.text, s.words, s.sha256, s.tokens,
       ARRAY(SELECT jsonb_array_elements_text(s.heading_path))
FROM documents_document d
JOIN unnest(%(documents)b::uuid[], %(versions)b::bigint[], %(ordinals)b::int[], %(chunk_ids)b::uuid[], %(kept)b::bool[],
            %(starts)b::int[], %(ends)b::int[], %(texts)b::text[], %(words)b::text[], %(sha256s)b::bytea[], %(tokens)b::int[],
            %(heading_paths)b::jsonb[])
     AS s (document_id, version, ordinal, chunk_id, kept, start, "end", text, words, sha256, tokens, heading_path)
  ON d.id = s.document_id

-- name: processing
-- For documents that take a while: of others nobody would see it.
UPDATE documents_document SET state = 'processing'
WHERE id = %(document)s AND version = %(version)s AND state = 'pending'
