-- name: clock
-- The time by the database: of all hosts that publish and read the same one, and not that of the transaction's start.
SELECT clock_timestamp()

-- name: version_text
-- A span by code points of a version's text in one revision: the one that was kept of it, or of the next higher one that
-- changed it; else the version's own. Its document may be deleted.
SELECT substr(coalesce(r.text, v.text), %(start)s + 1, %(length)s), d.deleted_at IS NOT NULL
FROM documents_documentversion v
JOIN documents_document d ON d.id = v.document_id
LEFT JOIN LATERAL (
    SELECT kept.text FROM documents_versionrevision kept
    WHERE kept.document_id = %(document)s AND kept.version = coalesce(v.same_as, v.version)
      AND kept.revision >= %(revision)s AND kept.replaced_at IS NOT NULL AND kept.text IS NOT NULL
    ORDER BY kept.revision LIMIT 1
) r ON true
WHERE v.document_id = %(document)s AND d.id = %(document)s AND v.version = %(version)s AND v.revision >= %(revision)s

-- name: revision_with
-- The newest revision of a version in which a span has this SHA-256, and how long its text is.
SELECT t.revision, t.characters FROM (
    SELECT v.revision, v.characters, v.text FROM documents_documentversion v
    WHERE v.document_id = %(document)s AND v.version = %(version)s
    UNION ALL
    SELECT kept.revision, kept.characters, kept.text
    FROM documents_documentversion v
    JOIN documents_versionrevision kept
      ON kept.document_id = v.document_id AND kept.version = coalesce(v.same_as, v.version)
    WHERE v.document_id = %(document)s AND v.version = %(version)s AND kept.replaced_at IS NOT NULL
      AND kept.text IS NOT NULL
) t
WHERE encode(sha256(convert_to(substr(t.text, %(start)s + 1, %(length)s), 'UTF8')), 'hex') = %(sha256)s
ORDER BY t.revision DESC LIMIT 1

-- name: revision_characters
SELECT characters FROM documents_versionrevision kept
WHERE kept.document_id = %(document)s AND kept.revision = %(revision)s AND kept.replaced_at IS NOT NULL
  AND kept.version = (SELECT coalesce(v.same_as, v.version) FROM documents_documentversion v
                      WHERE v.document_id = %(document)s AND v.version = %(version)s)

-- name: version_chunks
-- The chunks of one version where they stood in it, live or retired since.
SELECT c.chunk_id, p.ordinal::int - 1, p.start, p."end", c.text, encode(c.sha256, 'hex'), c.heading_path, c.tokens,
       v.page_numbers[width_bucket(p.start, v.page_starts)]
FROM documents_documentversion v,
     LATERAL unnest(v.chunk_ids, v.starts, v.ends) WITH ORDINALITY AS p (chunk_id, start, "end", ordinal)
JOIN documents_chunk c ON c.document_id = %(document)s AND c.chunk_id = p.chunk_id
WHERE v.document_id = %(document)s AND v.version = %(version)s AND p.ordinal > %(first)s
ORDER BY p.ordinal LIMIT %(limit)s

-- name: document_state
SELECT live_version, state FROM documents_document WHERE id = %(document)s

-- name: blob_part
SELECT data FROM documents_blob WHERE document_id = %(document)s AND version = %(version)s AND part = %(part)s
