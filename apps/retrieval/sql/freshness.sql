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

-- name: waiting_texts
-- The texts of newest versions that have been read, short ones first.
SELECT v.document_id, v.text
FROM documents_documentversion v JOIN documents_document d ON d.id = v.document_id AND d.version = v.version
WHERE v.document_id = ANY(%(documents)s) AND v.characters <= %(longest)s
ORDER BY v.characters, v.document_id LIMIT %(most)s

-- name: matching
-- Of these texts those that have words of the query, best first. They are in no index yet.
SELECT w.document_id
FROM (
    SELECT string_agg('''' || replace(replace(t.lexeme, '\', '\\'), '''', '''''') || '''', ' | ')::tsquery AS any_term
    FROM unnest(%(languages)s::regconfig[]) AS language, LATERAL unnest(to_tsvector(language, %(query)s)) t
) q
CROSS JOIN (
    SELECT waiting.document_id, to_tsvector(language, waiting.text) AS tsv
    FROM unnest(%(languages)s::regconfig[]) AS language,
         unnest(%(documents)s::uuid[], %(texts)s::text[]) AS waiting (document_id, text)
) w
WHERE w.tsv @@ q.any_term
GROUP BY w.document_id
ORDER BY max(ts_rank(w.tsv, q.any_term)) DESC, w.document_id
