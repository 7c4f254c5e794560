-- name: live_now
-- Of documents: which version and revision of each is live by now; none of one that was deleted.
SELECT id, live_version, live_revision FROM documents_document
WHERE id = ANY(%(documents)s::uuid[]) AND live_version IS NOT NULL AND deleted_at IS NULL

-- name: kept
-- Of versions: those that there are still.
SELECT v.document_id, v.version FROM documents_documentversion v
JOIN unnest(%(documents)s::uuid[], %(versions)s::bigint[]) AS hit (document_id, version)
  ON v.document_id = hit.document_id AND v.version = hit.version
