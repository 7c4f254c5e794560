-- name: lived_then
-- Of a chunk's row: was it live at that time? (IS NOT NULL is what the index of retired rows is about; without it all are
-- read.)
c.live_from <= %(as_of)s
    AND (c.retired_in_version IS NULL OR c.retired_in_version IS NOT NULL AND c.retired_at > %(as_of)s)

-- name: placed_then
-- The version that was live then, and what it was before later reindexes. The highest number published by then: live
-- versions only go up. A revision was in place until it was replaced.
CROSS JOIN LATERAL (
    SELECT own.version, own.source_updated_at, own.accepted_at,
           CASE WHEN r.revision IS NULL THEN own.revision ELSE r.revision END AS revision,
           CASE WHEN r.revision IS NULL THEN own.chunk_ids ELSE r.chunk_ids END AS chunk_ids,
           CASE WHEN r.revision IS NULL THEN own.starts ELSE r.starts END AS starts,
           CASE WHEN r.revision IS NULL THEN own.ends ELSE r.ends END AS ends,
           CASE WHEN r.revision IS NULL THEN own.page_starts ELSE r.page_starts END AS page_starts,
           CASE WHEN r.revision IS NULL THEN own.page_numbers ELSE r.page_numbers END AS page_numbers
    FROM documents_documentversion own
    LEFT JOIN documents_versionrevision r
      ON r.document_id = d.id AND r.version = coalesce(own.same_as, own.version) AND r.replaced_at > %(as_of)s
         AND r.revision = (SELECT min(kept.revision) FROM documents_versionrevision kept
                           WHERE kept.document_id = d.id AND kept.version = r.version AND kept.replaced_at > %(as_of)s)
    WHERE own.document_id = d.id
      AND own.version = (SELECT max(published.version) FROM documents_documentversion published
                         WHERE published.document_id = d.id AND published.published_at <= %(as_of)s)
) v

-- name: pinned
-- The chunks of a version that has been live once, as the last revision of it has them.
SELECT chunk_ids FROM documents_documentversion
WHERE document_id = %(pinned_document)s AND version = %(pinned_version)s AND published_at IS NOT NULL

-- name: lived_pinned
c.document_id = %(pinned_document)s AND c.chunk_id = ANY(%(pinned_chunks)s)

-- name: placed_pinned
JOIN documents_documentversion v ON v.document_id = d.id AND v.version = %(pinned_version)s

-- name: dense_past
-- Few chunks, live or retired: the vectors of all of them.
dense AS MATERIALIZED (
    SELECT e.document_id, e.chunk_id, 1 - (e.embedding {operator} %(vector)s::{type}) AS similarity
    FROM documents_document d
    JOIN documents_chunk c ON c.document_id = d.id
    JOIN {table} e ON e.document_id = c.document_id AND e.chunk_id = c.chunk_id
    WHERE d.collection_id = ANY(%(collections)s) AND c.collection_id = ANY(%(collections)s) AND {filter} AND {lived}
    ORDER BY (e.embedding {operator} %(vector)s::{type}) + 0 LIMIT {candidates}
),

-- name: dense_since
-- What is live still is found through the index, those that came later left out on the way; what has been retired since
-- is in no index, and all of it is compared.
still AS MATERIALIZED (
    SELECT document_id, chunk_id, 1 - (embedding {operator} %(vector)s::{type}) AS similarity
    FROM {table} e
    WHERE live AND collection_id = ANY(%(collections)s){holds}
      AND (SELECT c.live_from <= %(as_of)s FROM documents_chunk c
           WHERE c.document_id = e.document_id AND c.chunk_id = e.chunk_id)
    ORDER BY embedding {operator} %(vector)s::{type} LIMIT {candidates}
),
since AS MATERIALIZED (
    SELECT e.document_id, e.chunk_id, 1 - (e.embedding {operator} %(vector)s::{type}) AS similarity
    FROM documents_chunk c JOIN {table} e ON e.document_id = c.document_id AND e.chunk_id = c.chunk_id
    WHERE c.retired_in_version IS NOT NULL AND c.retired_at > %(as_of)s AND c.live_from <= %(as_of)s
      AND c.collection_id = ANY(%(collections)s){holds}
    ORDER BY (e.embedding {operator} %(vector)s::{type}) + 0 LIMIT {candidates}
),
dense AS MATERIALIZED (
    SELECT * FROM still UNION ALL SELECT * FROM since ORDER BY similarity DESC, chunk_id LIMIT {candidates}
),

-- name: born
-- Of a sample of the documents: how many live chunks there are, and how many of them were live then and pass a filter.
SELECT count(*), count(*) FILTER (WHERE c.live_from <= %(as_of)s AND {filter})
FROM (
    SELECT * FROM documents_document
    WHERE collection_id = ANY(%(collections)s) AND live_version IS NOT NULL ORDER BY id LIMIT {sample}
) d JOIN documents_chunk c ON c.document_id = d.id AND c.retired_in_version IS NULL
