-- name: waiting
-- The documents of which a newer version has been accepted than is live, or a first one: on its way, or failed.
SELECT d.id, d.live_version, d.version FROM documents_document d
WHERE d.collection_id = ANY(%(collections)s) AND (d.pending_since IS NOT NULL OR d.error IS NOT NULL)
  AND d.version > coalesce(d.live_version, 0) AND d.deleted_at IS NULL{holds}
ORDER BY d.pending_since, d.id LIMIT {limit}

-- name: waiting_count
SELECT count(*) FROM documents_document d
WHERE d.collection_id = ANY(%(collections)s) AND (d.pending_since IS NOT NULL OR d.error IS NOT NULL)
  AND d.version > coalesce(d.live_version, 0) AND d.deleted_at IS NULL{holds}

-- name: standing
SELECT id, live_version, version, deleted_at IS NOT NULL FROM documents_document WHERE id = ANY(%(documents)s)

-- name: matching
-- Of these documents, those whose newest version has been read and holds words of the query, best first. Nothing of it
-- is indexed yet: the texts are few.
SELECT v.document_id
FROM documents_documentversion v
JOIN documents_document d ON d.id = v.document_id AND d.version = v.version
CROSS JOIN (
    SELECT string_agg('''' || replace(replace(t.lexeme, '\', '\\'), '''', '''''') || '''', ' | ')::tsquery AS any_term
    FROM unnest(%(languages)s::regconfig[]) AS language, LATERAL unnest(to_tsvector(language, %(query)s)) t
) q
CROSS JOIN unnest(%(languages)s::regconfig[]) AS language
CROSS JOIN LATERAL (SELECT to_tsvector(language, v.text) AS tsv) w
WHERE v.document_id = ANY(%(documents)s) AND v.characters <= %(most)s AND w.tsv @@ q.any_term
GROUP BY v.document_id
ORDER BY max(ts_rank(w.tsv, q.any_term)) DESC, v.document_id
