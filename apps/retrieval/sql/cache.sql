-- name: changing
-- Has one of these documents a newer version on its way? Asked before a kept result is given again.
SELECT 1 FROM documents_document WHERE id = ANY(%(documents)s) AND version > live_version LIMIT 1
