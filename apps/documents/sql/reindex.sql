-- name: reindex_running
-- Runs that want feeding, of all tenants, the oldest first. Identifiers only.
SELECT tenant_id, collection_id, id FROM reindex_running()

-- name: reindex_collections
SELECT tenant_id, id FROM reindex_collections()

-- name: next_documents
-- A page of a collection's live documents: what their content was first sent as, and what has read and cut it.
SELECT d.id, coalesce(v.same_as, v.version), v.bytes, v.parser, v.chunker
FROM documents_document d JOIN documents_documentversion v ON v.document_id = d.id AND v.version = d.live_version
WHERE d.collection_id = %(collection)s AND d.id > %(after)s
ORDER BY d.id LIMIT %(limit)s

-- name: open_reindexes
-- One job of a run for a document's content, and one open reindex of a document whichever run it is of.
INSERT INTO documents_ingestionjob
    (id, tenant_id, collection_id, document_id, version, kind, reindex_id, bytes, stage, state, priority, attempts, fence,
     worker, not_before, outcome, timings, created_at)
SELECT gen_random_uuid(), %(tenant)s, %(collection)s, j.document_id, j.version, 'reindex', %(run)s, j.bytes, 'prepare',
       'queued', %(priority)s, 0, 0, '', now(), '', '{}', now()
FROM unnest(%(documents)b::uuid[], %(versions)b::bigint[], %(sizes)b::bigint[]) AS j (document_id, version, bytes)
WHERE NOT EXISTS (
    SELECT 1 FROM documents_ingestionjob o
    WHERE o.document_id = j.document_id AND o.version = j.version AND o.reindex_id = %(run)s
)
ON CONFLICT DO NOTHING

-- name: open_jobs_of_reindex
SELECT count(*) FROM documents_ingestionjob WHERE reindex_id = %(run)s AND state IN ('queued', 'running')

-- name: counts_of_reindex
SELECT count(*) FILTER (WHERE state IN ('queued', 'running')),
       count(*) FILTER (WHERE state = 'done' AND outcome = 'published'),
       count(*) FILTER (WHERE state = 'done' AND outcome = 'unchanged'),
       count(*) FILTER (WHERE state = 'dead'),
       count(*) FILTER (WHERE state = 'cancelled' OR outcome IN ('superseded', 'deleted'))
FROM documents_ingestionjob WHERE reindex_id = %(run)s

-- name: pace_of_reindex
-- How many of its jobs ended in the last minute.
SELECT count(*) FROM documents_ingestionjob
WHERE collection_id = %(collection)s AND finished_at > now() - interval '1 minute' AND reindex_id = %(run)s

-- name: cancel_jobs_of_reindex
-- In the order in which workers lock them.
UPDATE documents_ingestionjob SET state = 'cancelled', lease_until = NULL, finished_at = now()
WHERE id IN (
    SELECT j.id FROM documents_ingestionjob j WHERE j.reindex_id = %(run)s AND j.state IN ('queued', 'running')
    ORDER BY j.id FOR UPDATE
)
RETURNING document_id, version
