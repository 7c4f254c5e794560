-- name: still_live
-- Of these, the documents whose live version has the content that a reindex is about.
SELECT d.id FROM documents_document d
JOIN {held} ON d.id = held.document_id
JOIN documents_documentversion v ON v.document_id = d.id AND v.version = d.live_version
WHERE coalesce(v.same_as, v.version) = held.version

-- name: compare_versions
-- What is live, beside what was read of it anew.
SELECT v.document_id, v.text = held.text, v.title, v.page_starts, v.page_numbers, v.chunk_ids, v.starts, v.ends
FROM documents_documentversion v
JOIN unnest(%(documents)b::uuid[], %(versions)b::bigint[], %(texts)b::text[]) AS held (document_id, version, text)
  ON v.document_id = held.document_id AND v.version = held.version

-- name: keep_coming
-- The coming revision, until publish puts it in place: what is live answers meanwhile. Its text only if it differs.
INSERT INTO documents_versionrevision
    (document_id, version, revision, tenant_id, media_type, title, text, characters, page_starts, page_numbers, notes,
     parser, chunker)
SELECT d.id, held.version, d.live_revision + 1, d.tenant_id, held.media_type, held.title, held.text, held.characters,
       string_to_array(held.page_starts, ',')::int[], string_to_array(held.page_numbers, ',', 'NULL')::int[],
       held.notes::jsonb, held.parser, %(chunker)s
FROM documents_document d
JOIN unnest(%(documents)b::uuid[], %(versions)b::bigint[], %(texts)b::text[], %(characters)b::bigint[],
            %(titles)b::text[], %(parsers)b::text[], %(media_types)b::text[], %(page_starts)b::text[],
            %(page_numbers)b::text[], %(notes)b::text[])
     AS held (document_id, version, text, characters, title, parser, media_type, page_starts, page_numbers, notes)
  ON d.id = held.document_id

-- name: clear_coming
DELETE FROM documents_versionrevision r
USING {held}
WHERE r.document_id = held.document_id AND r.version = held.version AND r.replaced_at IS NULL

-- name: made_again
-- Read and cut anew with the same result: only what made it is written down.
UPDATE documents_documentversion v SET
    parser = held.parser, chunker = %(chunker)s, media_type = held.media_type, notes = held.notes::jsonb
FROM unnest(%(documents)b::uuid[], %(versions)b::bigint[], %(parsers)b::text[], %(media_types)b::text[],
            %(notes)b::text[])
     AS held (document_id, version, parser, media_type, notes)
WHERE v.document_id = held.document_id AND (v.version = held.version OR v.same_as = held.version)

-- name: archive_revision
-- Invariant I6: what a citation of the old revision points to. A text that the new one does not change is kept once.
INSERT INTO documents_versionrevision
    (document_id, version, revision, tenant_id, media_type, title, text, characters, chunk_ids, starts, ends, page_starts,
     page_numbers, notes, parser, chunker, replaced_at)
SELECT v.document_id, v.version, v.revision, v.tenant_id, v.media_type, v.title,
       CASE WHEN coming.text IS NOT NULL THEN v.text END, v.characters, v.chunk_ids, v.starts, v.ends, v.page_starts,
       v.page_numbers, v.notes, v.parser, v.chunker, %(now)s
FROM documents_documentversion v
JOIN {held} ON v.document_id = held.document_id AND v.version = held.version
JOIN documents_versionrevision coming
  ON coming.document_id = v.document_id AND coming.version = v.version AND coming.replaced_at IS NULL

-- name: put_in_place
-- Also under the higher numbers under which the same content was sent again.
UPDATE documents_documentversion v SET
    revision = coming.revision, media_type = coming.media_type, title = coming.title,
    text = coalesce(coming.text, v.text), characters = coming.characters, page_starts = coming.page_starts,
    page_numbers = coming.page_numbers, notes = coming.notes, parser = coming.parser, chunker = coming.chunker
FROM documents_versionrevision coming
JOIN {held} ON coming.document_id = held.document_id AND coming.version = held.version
WHERE v.document_id = coming.document_id AND (v.version = coming.version OR v.same_as = coming.version)
  AND coming.replaced_at IS NULL

-- name: set_revision
-- The document goes on as it was, whatever state it is in.
UPDATE documents_document d SET
    live_revision = v.revision, title = CASE WHEN d.given_title = '' THEN v.title ELSE d.given_title END
FROM documents_documentversion v JOIN {held} ON v.document_id = held.document_id AND v.version = held.version
WHERE d.id = v.document_id AND d.live_revision < v.revision AND d.deleted_at IS NULL
RETURNING d.id, d.live_version, d.state
