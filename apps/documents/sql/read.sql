-- name: version_text
-- A span by code points.
SELECT substr(text, %(start)s + 1, %(length)s) FROM documents_documentversion
WHERE document_id = %(document)s AND version = %(version)s

-- name: version_chunks
-- The chunks of one version where they stood in it, live or retired since.
SELECT c.chunk_id, p.ordinal::int - 1, p.start, p."end", c.text, encode(c.sha256, 'hex'), c.heading_path, c.tokens,
       width_bucket(p.start, v.page_starts)
FROM documents_documentversion v,
     LATERAL unnest(v.chunk_ids, v.starts, v.ends) WITH ORDINALITY AS p (chunk_id, start, "end", ordinal)
JOIN documents_chunk c ON c.document_id = %(document)s AND c.chunk_id = p.chunk_id
WHERE v.document_id = %(document)s AND v.version = %(version)s AND p.ordinal > %(first)s
ORDER BY p.ordinal LIMIT %(limit)s

-- name: document_state
SELECT live_version, state FROM documents_document WHERE id = %(document)s

-- name: blob_part
SELECT data FROM documents_blob WHERE document_id = %(document)s AND version = %(version)s AND part = %(part)s
