-- name: delete_document
-- A delete keeps the version number (its own, if it carries one), so that replays at or below it stay stale. That of a
-- document that is deleted already still counts.
UPDATE documents_document SET
    version = greatest(version, %(version)s), deleted_version = greatest(version, %(version)s), live_version = NULL,
    state = 'deleted', error = NULL, pending_since = NULL, deleted_at = coalesce(deleted_at, %(now)s),
    updated_at = %(now)s
WHERE id = %(document)s

-- name: hold_document
SELECT 1 FROM documents_document WHERE id = %(document)s AND erased_at IS NULL FOR KEY SHARE

-- name: bury_document
-- What is left of an erased document.
UPDATE documents_document SET
    source_uri = %(source_uri)s, title = '', metadata = '{}', content_sha256 = '', media_type = '', error = NULL,
    erased_at = coalesce(erased_at, %(now)s), updated_at = %(now)s
WHERE id = %(document)s

-- name: retire_all_chunks
UPDATE documents_chunk SET retired_in_version = %(version)s, retired_at = now()
WHERE document_id = %(document)s AND retired_in_version IS NULL
RETURNING tokens

-- name: retire_all_embeddings
UPDATE {table} SET live = false WHERE document_id = %(document)s AND live

-- name: clear_document_stage
DELETE FROM documents_stagedchunk WHERE document_id = %(document)s

-- name: clear_document_coming
DELETE FROM documents_versionrevision WHERE document_id = %(document)s AND replaced_at IS NULL
