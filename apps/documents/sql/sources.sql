-- name: items_after
-- What is known of a source's items, in the order of their keys. (The state of one that could not be read is that of
-- what was taken last.)
SELECT key, state FROM documents_sourceitem
WHERE source_id = %(source)s AND key > %(after)s ORDER BY key LIMIT %(limit)s

-- name: item_states
SELECT key, state FROM documents_sourceitem WHERE source_id = %(source)s AND key = ANY(%(keys)b)

-- name: claim_names
-- An item belongs to the source that brought it first: no row comes back for one that is another's.
INSERT INTO documents_sourceitem AS i (collection_id, key, tenant_id, source_id, state)
SELECT %(collection)s, key, %(tenant)s, %(source)s, '{}' FROM unnest(%(keys)b::text[]) AS key
ON CONFLICT (collection_id, key) DO UPDATE SET missing_in = NULL WHERE i.source_id = EXCLUDED.source_id
RETURNING i.key

-- name: keep_items
-- What became of items: the document of each, the state that its content had, why it could not be taken. A state of
-- NULL leaves what was there.
UPDATE documents_sourceitem i SET
    document_id = coalesce(n.document_id, i.document_id), state = coalesce(n.state, i.state), error = n.error
FROM unnest(%(keys)b::text[], %(documents)b::uuid[], %(states)b::jsonb[], %(errors)b::jsonb[])
     AS n (key, document_id, state, error)
WHERE i.collection_id = %(collection)s AND i.key = n.key AND i.source_id = %(source)s

-- name: drop_items
DELETE FROM documents_sourceitem WHERE source_id = %(source)s AND key = ANY(%(keys)b)

-- name: mark_missing
UPDATE documents_sourceitem SET missing_in = %(scan)s WHERE source_id = %(source)s AND key = ANY(%(keys)b)

-- name: unmark_missing
UPDATE documents_sourceitem SET missing_in = NULL WHERE source_id = %(source)s AND key = ANY(%(keys)b)

-- name: missing_items
SELECT key, document_id FROM documents_sourceitem
WHERE source_id = %(source)s AND missing_in = %(scan)s ORDER BY key LIMIT %(limit)s

-- name: count_missing
SELECT count(*) FROM documents_sourceitem WHERE source_id = %(source)s AND missing_in = %(scan)s

-- name: erased_names
-- Names of erased documents among these: what was erased does not come back by itself.
SELECT source_uri FROM documents_document
WHERE collection_id = %(collection)s AND source_uri = ANY(%(source_uris)b) AND erased_at IS NOT NULL

-- name: scrub_failures
-- Runs that could not take an item name it.
UPDATE documents_syncrun r SET failures = (
    SELECT coalesce(jsonb_agg(f), '[]') FROM jsonb_array_elements(r.failures) f WHERE f ->> 'source_uri' <> %(source_uri)s
)
WHERE r.source_id IN (SELECT s.id FROM documents_source s WHERE s.collection_id = %(collection)s)
  AND r.failures @> jsonb_build_array(jsonb_build_object('source_uri', %(source_uri)s::text))

-- name: claim_run
SELECT id, tenant_id, source_id, fence, attempts
FROM sync_claim(%(worker)s, make_interval(secs => %(lease)s), %(run)s)

-- name: own_run
-- Is the run still in these hands? Locks its row, writes how far it has come.
UPDATE documents_syncrun SET counts = %(counts)s::jsonb, failures = %(failures)s::jsonb
WHERE id = %(run)s AND fence = %(fence)s AND state = 'running'

-- name: keep_run
UPDATE documents_syncrun SET lease_until = now() + make_interval(secs => %(lease)s)
WHERE id = %(run)s AND fence = %(fence)s AND state = 'running'

-- name: begin_scan
UPDATE documents_source SET scans = scans + 1 WHERE id = %(source)s RETURNING scans

-- name: end_run
UPDATE documents_syncrun SET
    state = %(state)s, error = %(error)s::jsonb, lease_until = NULL, finished_at = now()
WHERE id = %(run)s AND fence = %(fence)s AND state = 'running'

-- name: put_back_run
-- Again later; where another run has been asked for meanwhile, that one does its work.
UPDATE documents_syncrun r SET
    state = CASE WHEN other.waits THEN 'cancelled' ELSE 'queued' END,
    finished_at = CASE WHEN other.waits THEN other.moment END,
    attempts = r.attempts - %(forgiven)s, lease_until = NULL, error = %(error)s::jsonb,
    not_before = now() + make_interval(secs => %(delay)s)
FROM (
    SELECT EXISTS (SELECT 1 FROM documents_syncrun w WHERE w.source_id = %(source)s AND w.state = 'queued') AS waits,
           now() AS moment
) other
WHERE r.id = %(run)s AND r.fence = %(fence)s AND r.state = 'running'

-- name: request_run
-- At most one run of a source waits: a second wish is the same one.
INSERT INTO documents_syncrun AS r
    (id, tenant_id, source_id, trigger, slot, empty_it, state, attempts, fence, worker, not_before, counts, failures,
     created_at)
SELECT %(id)s, s.tenant_id, s.id, %(trigger)s, %(slot)s, %(empty_it)s, 'queued', 0, 0, '', now(), '{}', '[]', now()
FROM documents_source s WHERE s.id = %(source)s
ON CONFLICT DO NOTHING
RETURNING r.id

-- name: sync_due
SELECT sync_due()

-- name: sync_forget
SELECT sync_forget(%(before)s)

-- name: schedules
SELECT kind, tenant_id, id, schedule, slot FROM schedules()

-- name: watched
SELECT tenant_id, id FROM source_watched()
