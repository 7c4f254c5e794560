-- name: live_now
-- Of documents: which version and revision of each is live by now; none of one that was deleted.
SELECT id, live_version, live_revision FROM documents_document
WHERE id = ANY(%(documents)s::uuid[]) AND live_version IS NOT NULL AND deleted_at IS NULL
