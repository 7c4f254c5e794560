-- name: live_now
-- Of documents: which version and revision of each is live by now; none of one that was deleted.
SELECT id, live_version, live_revision FROM documents_document
WHERE id = ANY(%(documents)s::uuid[]) AND live_version IS NOT NULL AND deleted_at IS NULL

-- name: kept_now
-- Of documents: which of these versions are still there. An erasure leaves none.
SELECT document_id, version FROM documents_documentversion
WHERE document_id = ANY(%(documents)s::uuid[]) AND version = ANY(%(versions)s::bigint[]) AND published_at IS NOT NULL
