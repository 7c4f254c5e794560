-- name: delete_documents
-- A delete keeps the version number (its own, if it carries one), so that replays at or below it stay stale. That of a
-- document that is deleted already still counts.
UPDATE documents_document d SET
    version = greatest(d.version, held.version), deleted_version = greatest(d.version, held.version),
    live_version = NULL, state = 'deleted', error = NULL, pending_since = NULL,
    deleted_at = coalesce(d.deleted_at, %(now)s), updated_at = %(now)s
FROM {held}
WHERE d.id = held.document_id

-- name: known_document
SELECT 1 FROM documents_document WHERE id = %(document)s AND erased_at IS NULL

-- name: hold_document
SELECT 1 FROM documents_document WHERE id = %(document)s AND erased_at IS NULL FOR KEY SHARE

-- name: bury_document
-- What is left of an erased document.
UPDATE documents_document SET
    source_uri = %(source_uri)s, given_title = '', title = '', metadata = '{}', attributes = '', content_sha256 = '',
    media_type = '', error = NULL, erased_at = coalesce(erased_at, %(now)s), updated_at = %(now)s
WHERE id = %(document)s

-- name: retire_all_chunks
UPDATE documents_chunk c SET retired_in_version = held.version, retired_at = %(now)s
FROM {held}
WHERE c.document_id = held.document_id AND c.retired_in_version IS NULL
RETURNING c.tokens

-- name: retire_all_embeddings
UPDATE {table} SET live = false WHERE document_id = ANY(%(documents)b) AND live

-- name: clear_document_stages
DELETE FROM documents_stagedchunk WHERE document_id = ANY(%(documents)b)

-- name: clear_coming_of
DELETE FROM documents_versionrevision WHERE document_id = ANY(%(documents)b) AND replaced_at IS NULL
