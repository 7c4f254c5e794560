-- name: hold_collection
-- Sharded tables have no foreign key to it (on Citus they cannot).
SELECT space_id, second_space_id FROM documents_collection WHERE id = %(collection)s FOR KEY SHARE

-- name: lock_sources
-- One writer at a time for a source URI of a collection: hash partitions cannot hold that unique key.
SELECT pg_advisory_xact_lock(key) FROM (
    SELECT DISTINCT hashtextextended(%(collection)s::text || ' ' || source_uri, 0) AS key
    FROM unnest(%(source_uris)b::text[]) AS source_uri ORDER BY key
) AS keys

-- name: names
SELECT id, source_uri FROM documents_document WHERE id = ANY(%(ids)b) AND erased_at IS NULL

-- name: find_sources
-- Found first, then locked by their ids: Citus locks rows of one known document only.
SELECT id FROM documents_document WHERE collection_id = %(collection)s AND source_uri = ANY(%(source_uris)b)

-- name: taken
SELECT id FROM documents_document WHERE id = ANY(%(ids)b)

-- name: upsert_documents
-- Invariant I2: the guard is in the statement. No row back means that the stored version is not lower.
INSERT INTO documents_document AS d
    (id, tenant_id, collection_id, source_uri, given_title, title, metadata, attributes, version, content_sha256,
     media_type, state, pending_since, created_at, updated_at)
{each id uuid, tenant uuid, collection uuid, source_uri text, given_title text, title text, metadata jsonb,
      attributes tsvector, version bigint, sha256 bytea, media_type text, state text, pending_since timestamptz,
      created_at timestamptz, updated_at timestamptz}
ON CONFLICT (id) DO UPDATE SET
    version = EXCLUDED.version,
    source_uri = EXCLUDED.source_uri,
    given_title = EXCLUDED.given_title,
    title = EXCLUDED.title,
    metadata = EXCLUDED.metadata,
    attributes = EXCLUDED.attributes,
    content_sha256 = EXCLUDED.content_sha256,
    media_type = EXCLUDED.media_type,
    state = EXCLUDED.state,
    error = NULL,
    pending_since = coalesce(d.pending_since, EXCLUDED.pending_since),
    deleted_at = NULL,
    erased_at = NULL,
    updated_at = EXCLUDED.updated_at
WHERE d.version < EXCLUDED.version
RETURNING d.id, d.live_version, d.live_revision

-- name: insert_versions
INSERT INTO documents_documentversion
    (document_id, version, tenant_id, sha256, media_type, declared_type, filename, bytes, blob_uri, title, notes, parser,
     chunker, source_updated_at, accepted_at)
SELECT d.id, v.version, d.tenant_id, v.sha256, v.media_type, v.media_type, v.filename, v.bytes,
       'pg:' || d.id || '/' || v.version, '', '[]', '', '', v.source_updated_at, %(now)s
FROM documents_document d
JOIN unnest(%(documents)b::uuid[], %(versions)b::bigint[], %(sha256s)b::bytea[], %(media_types)b::text[],
            %(filenames)b::text[], %(sizes)b::bigint[], %(source_updated_ats)b::timestamptz[])
     AS v (document_id, version, sha256, media_type, filename, bytes, source_updated_at)
  ON d.id = v.document_id

-- name: insert_blobs
INSERT INTO documents_blob (document_id, version, part, tenant_id, data)
SELECT d.id, b.version, %(part)s, d.tenant_id, b.data
FROM documents_document d
JOIN unnest(%(documents)b::uuid[], %(versions)b::bigint[], %(data)b::bytea[]) AS b (document_id, version, data)
  ON d.id = b.document_id

-- name: raise_version
-- The same content with a higher version: no work, but the number rises, so that an older event stays stale.
-- A live document's live version rises with it, and a pending one is published under the new number.
UPDATE documents_document AS d SET
    version = %(version)s,
    live_version = CASE WHEN d.live_version = d.version THEN %(version)s ELSE d.live_version END,
    updated_at = %(now)s
WHERE d.id = %(id)s AND d.version < %(version)s AND d.deleted_at IS NULL
RETURNING d.version, d.live_version

-- name: repeat_version
-- The version row of content that was sent again under a higher number.
INSERT INTO documents_documentversion
    (document_id, version, tenant_id, sha256, media_type, declared_type, filename, bytes, blob_uri, same_as, title, text,
     characters, chunk_ids, starts, ends, page_starts, page_numbers, notes, parser, chunker, revision, source_updated_at,
     accepted_at, published_at)
SELECT document_id, %(version)s, tenant_id, sha256, media_type, declared_type, filename, bytes, blob_uri,
       coalesce(same_as, version), title, text, characters, chunk_ids, starts, ends, page_starts, page_numbers, notes,
       parser, chunker, revision, %(source_updated_at)s, %(now)s,
       CASE WHEN published_at IS NOT NULL THEN %(now)s::timestamptz END
FROM documents_documentversion
WHERE document_id = %(id)s AND version = %(same_as)s
