-- name: open_jobs
-- Written with the versions they are for. Whoever accepts documents to work on them at once holds the jobs from birth.
INSERT INTO documents_ingestionjob
    (id, tenant_id, collection_id, document_id, version, bytes, stage, state, priority, attempts, fence, worker,
     lease_until, not_before, outcome, timings, created_at)
SELECT j.id, %(tenant)s, %(collection)s, j.document_id, j.version, j.bytes, 'prepare', %(state)s, j.priority,
       %(claims)s, %(claims)s, %(worker)s, now() + make_interval(secs => %(lease)s), %(now)s, '', '{}', %(now)s
FROM unnest(%(ids)b::uuid[], %(documents)b::uuid[], %(versions)b::bigint[], %(sizes)b::bigint[],
            %(priorities)b::smallint[])
     AS j (id, document_id, version, bytes, priority)

-- name: claim
-- Take the next due job of a stage, queued or with a lease that has run out, and with it others of its priority, if all
-- are small and at their first try: one that has killed its worker comes alone. Identifiers only, no content.
SELECT id, tenant_id, collection_id, document_id, version, kind, base_version, base_revision, bytes, attempts, fence,
       created_at, timings
FROM ledger_claim(%(stage)s, %(worker)s, make_interval(secs => %(lease)s), %(limit)s,
                  %(small)s, %(only_small)s, %(lowest)s::smallint, %(job)s)

-- name: waiting_jobs
-- Of each of these documents the job of the newest version, while it has not ended. `due`: a reader may do it itself; it
-- is not one that has failed and is to be tried again after a while.
SELECT DISTINCT ON (document_id) id, document_id, bytes, stage, state = 'running' AS running,
       attempts < %(tries)s AND (state = 'running' OR not_before <= now()) AS due
FROM documents_ingestionjob
WHERE document_id = ANY(%(documents)b) AND kind = 'ingest' AND state IN ('queued', 'running')
ORDER BY document_id, version DESC

-- name: claim_these
-- For a reader that cannot wait: jobs of a stage that have been tried fewer than so many times. With `take_over` also
-- what a worker has in hand, but not what another reader has: each would begin anew what the other is about to end.
UPDATE documents_ingestionjob j SET
    state = 'running', worker = %(worker)s, lease_until = now() + make_interval(secs => %(lease)s),
    attempts = j.attempts + 1, fence = j.fence + 1
WHERE j.id IN (
    SELECT due.id FROM documents_ingestionjob due
    WHERE due.id = ANY(%(ids)b) AND due.stage = %(stage)s AND due.attempts < %(tries)s
      AND ((due.state = 'queued' AND due.not_before <= now())
           OR (due.state = 'running' AND (due.lease_until < now() OR (%(take_over)s AND due.worker NOT LIKE 'reader %%'))))
    ORDER BY due.id FOR UPDATE SKIP LOCKED
)
RETURNING j.id, j.tenant_id, j.collection_id, j.document_id, j.version, j.kind, j.base_version, j.base_revision, j.bytes,
          j.attempts, j.fence, j.created_at, j.timings

-- name: heartbeat
-- Keep the lease of jobs that are being worked on; a job that was claimed by another since is not touched.
-- One that a transaction holds is skipped: so long nobody else can claim it either.
UPDATE documents_ingestionjob AS j SET lease_until = now() + make_interval(secs => %(lease)s)
WHERE j.id IN (
    SELECT own.id FROM documents_ingestionjob own
    JOIN unnest(%(ids)b::uuid[], %(fences)b::bigint[]) AS held (id, fence)
      ON own.id = held.id AND own.fence = held.fence
    WHERE own.state = 'running' FOR UPDATE OF own SKIP LOCKED
)

-- name: own
-- Which jobs does this worker still hold? Locks their rows until the transaction ends.
SELECT j.id FROM documents_ingestionjob j
JOIN unnest(%(ids)b::uuid[], %(fences)b::bigint[]) AS held (id, fence) ON j.id = held.id AND j.fence = held.fence
WHERE j.state = 'running' ORDER BY j.id FOR UPDATE OF j

-- name: hand_over
-- The next stage may take the job; attempts count per stage.
UPDATE documents_ingestionjob j SET
    stage = %(stage)s, state = 'queued', attempts = 0, lease_until = NULL, not_before = now(),
    base_version = held.base, base_revision = held.base_revision, timings = j.timings || held.timings
FROM unnest(%(ids)b::uuid[], %(fences)b::bigint[], %(bases)b::bigint[], %(base_revisions)b::bigint[],
            %(timings)b::jsonb[])
     AS held (id, fence, base, base_revision, timings)
WHERE j.id = held.id AND j.fence = held.fence AND j.state = 'running'

-- name: finish
-- The end of jobs that need no more work.
UPDATE documents_ingestionjob j SET
    state = 'done', stage = CASE WHEN %(outcome)s = 'published' THEN 'embed' ELSE j.stage END,
    outcome = %(outcome)s, lease_until = NULL, finished_at = now(), error = NULL,
    timings = j.timings || held.timings
FROM unnest(%(ids)b::uuid[], %(fences)b::bigint[], %(timings)b::jsonb[]) AS held (id, fence, timings)
WHERE j.id = held.id AND j.fence = held.fence AND j.state = 'running'

-- name: retry_later
-- A passing failure: queued again, not before a while; uncounted: how many tries it was none of.
UPDATE documents_ingestionjob SET
    state = 'queued', lease_until = NULL, attempts = attempts - %(uncounted)s::int, error = %(error)s::jsonb,
    not_before = now() + make_interval(secs => %(delay)s)
WHERE id = %(id)s AND fence = %(fence)s AND state = 'running'

-- name: bury
-- A failure for good: the dead letter keeps its error.
UPDATE documents_ingestionjob SET
    state = 'dead', lease_until = NULL, finished_at = now(), error = %(error)s::jsonb
WHERE id = %(id)s AND fence = %(fence)s AND state = 'running'

-- name: fail_version
-- What a dead job leaves: its version carries the error.
UPDATE documents_documentversion SET error = %(error)s::jsonb
WHERE document_id = %(document)s AND (version = %(version)s OR same_as = %(version)s)

-- name: fail_document
-- Invariant I5: the old version goes on serving (stale); without one the document has failed. A newer accepted
-- version is none of this failure's business.
UPDATE documents_document SET
    state = CASE WHEN live_version IS NULL THEN 'failed' ELSE 'stale' END,
    error = %(error)s::jsonb, updated_at = now(), pending_since = NULL
WHERE id = %(document)s AND deleted_at IS NULL
  AND NOT EXISTS (
      SELECT 1 FROM documents_documentversion v
      WHERE v.document_id = %(document)s AND v.version > %(version)s AND v.same_as IS DISTINCT FROM %(version)s
  )

-- name: wake_superseded
-- The newest version failed: the newest one that stepped aside for it gets its turn after all.
UPDATE documents_ingestionjob SET
    state = 'queued', stage = 'prepare', outcome = '', attempts = 0, finished_at = NULL, not_before = now()
WHERE id = (
    SELECT id FROM documents_ingestionjob
    WHERE document_id = %(document)s AND version < %(version)s AND version > %(live_version)s
      AND state = 'done' AND outcome = 'superseded' AND kind = 'ingest'
    ORDER BY version DESC LIMIT 1
)

-- name: retry_dead
-- A person asks for another try of a dead or cancelled job. A document has one open reindex.
UPDATE documents_ingestionjob j SET
    state = 'queued', stage = 'prepare', attempts = 0, error = NULL, finished_at = NULL, not_before = now()
WHERE id = %(id)s AND state IN ('dead', 'cancelled')
  AND NOT (kind = 'reindex' AND EXISTS (
      SELECT 1 FROM documents_ingestionjob o
      WHERE o.document_id = j.document_id AND o.kind = 'reindex' AND o.state IN ('queued', 'running')
  ))
RETURNING document_id, version, kind

-- name: await_again
-- The document of a job that is tried again is pending again, and its version has not failed so far.
UPDATE documents_document SET state = 'pending', error = NULL, pending_since = coalesce(pending_since, %(now)s)
WHERE id = %(document)s AND version = %(version)s AND deleted_at IS NULL

-- name: forget_failure
UPDATE documents_documentversion SET error = NULL
WHERE document_id = %(document)s AND (version = %(version)s OR same_as = %(version)s)

-- name: cancel
-- Only work that has not ended can be cancelled; a running worker finds out at its next write.
UPDATE documents_ingestionjob SET state = 'cancelled', lease_until = NULL, finished_at = now()
WHERE id = %(id)s AND state IN ('queued', 'running')
RETURNING document_id, version, kind

-- name: withdraw
-- A cancelled version is nobody's wait any more: the live one goes on serving, and says that it is not the newest.
UPDATE documents_document SET
    state = CASE WHEN live_version IS NULL THEN 'failed' ELSE 'stale' END, pending_since = NULL, updated_at = now(),
    error = '{"code": "cancelled", "detail": "The job was cancelled."}'::jsonb
WHERE id = %(document)s AND version = %(version)s AND deleted_at IS NULL

-- name: cancel_documents
-- A delete ends all work on the documents.
UPDATE documents_ingestionjob SET
    state = 'done', outcome = 'deleted', lease_until = NULL, finished_at = now()
WHERE document_id = ANY(%(documents)b) AND state IN ('queued', 'running')

-- name: pending
-- How many jobs have not ended, of all tenants, counted up to a bound.
SELECT ledger_pending(%(at_most)s)

-- name: forget
-- Ended jobs that are old enough. How many were removed.
SELECT ledger_forget(%(before)s, %(at_most)s)

-- name: overview
-- Queue depth by stage and state, what is due, and the age in seconds of the oldest open job. No tenant in it.
SELECT stage, state, jobs, due, oldest_seconds FROM ledger_overview()

-- name: progress
SELECT collection_id, count(*) FILTER (WHERE finished_at IS NULL), count(*) FILTER (WHERE finished_at IS NOT NULL)
FROM documents_ingestionjob
WHERE collection_id = ANY(%(collections)b) AND kind = 'ingest'
  AND (finished_at IS NULL OR finished_at > now() - interval '1 minute')
GROUP BY collection_id
