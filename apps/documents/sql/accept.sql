-- name: hold_collection
-- Sharded tables have no foreign key to it (on Citus they cannot).
SELECT 1 FROM documents_collection WHERE id = %(collection)s FOR KEY SHARE

-- name: lock_source
-- One writer at a time for a source URI of a collection: hash partitions cannot hold that unique key.
SELECT pg_advisory_xact_lock(hashtextextended(%(collection)s::text || ' ' || %(source_uri)s, 0))

-- name: insert_version
INSERT INTO documents_documentversion
    (document_id, version, tenant_id, sha256, media_type, filename, bytes, blob_uri, title, parser, chunker,
     source_updated_at, accepted_at)
VALUES (%(id)s, %(version)s, %(tenant)s, %(sha256)s, %(media_type)s, %(filename)s, %(bytes)s, %(blob_uri)s, %(title)s,
        '', '', %(source_updated_at)s, %(now)s)

-- name: insert_blob
INSERT INTO documents_blob (document_id, version, part, tenant_id, data)
VALUES (%(id)s, %(version)s, %(part)s, %(tenant)s, %(data)s)

-- name: upsert_document
-- Invariant I2: the guard is in the statement. No row back means that the stored version is not lower.
INSERT INTO documents_document AS d
    (id, tenant_id, collection_id, source_uri, title, metadata, version, content_sha256, media_type, state,
     pending_since, created_at, updated_at)
VALUES
    (%(id)s, %(tenant)s, %(collection)s, %(source_uri)s, coalesce(%(title)s, ''), coalesce(%(metadata)s::jsonb, '{}'),
     %(version)s, %(sha256)s, %(media_type)s, 'pending', %(now)s, %(now)s, %(now)s)
ON CONFLICT (id) DO UPDATE SET
    version = EXCLUDED.version,
    source_uri = coalesce(%(renamed)s, d.source_uri),
    title = coalesce(%(title)s, d.title),
    metadata = coalesce(%(metadata)s::jsonb, d.metadata),
    content_sha256 = EXCLUDED.content_sha256,
    media_type = EXCLUDED.media_type,
    state = 'pending',
    error = NULL,
    pending_since = coalesce(d.pending_since, EXCLUDED.pending_since),
    deleted_at = NULL,
    erased_at = NULL,
    updated_at = EXCLUDED.updated_at
WHERE d.version < EXCLUDED.version
RETURNING d.*

-- name: find_source
-- Found first, then locked by its id: Citus locks rows of one known document only.
SELECT id FROM documents_document
WHERE collection_id = %(collection)s AND source_uri IN (%(source_uri)s, %(erased)s)

-- name: is_taken
SELECT 1 FROM documents_document WHERE id = %(id)s

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
    (document_id, version, tenant_id, sha256, media_type, filename, bytes, blob_uri, same_as, title, text, characters,
     chunk_ids, starts, ends, parser, chunker, source_updated_at, accepted_at, published_at)
SELECT document_id, %(version)s, tenant_id, sha256, media_type, filename, bytes, blob_uri, coalesce(same_as, version),
       title, text, characters, chunk_ids, starts, ends, parser, chunker, %(source_updated_at)s, %(now)s,
       CASE WHEN published_at IS NOT NULL THEN %(now)s::timestamptz END
FROM documents_documentversion
WHERE document_id = %(id)s AND version = %(same_as)s
