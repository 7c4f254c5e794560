"""Claiming jobs and counting them, across tenants: identifiers and numbers only (see ledger.sql)."""

from django.db import migrations

CLAIM = """
CREATE FUNCTION ledger_claim(wanted_stage varchar, claimer varchar, lease interval, at_most integer, small bigint,
                             only_small boolean, lowest smallint, wanted uuid)
RETURNS TABLE (id uuid, tenant_id uuid, collection_id uuid, document_id uuid, version bigint, kind varchar,
               base_version bigint, base_revision bigint, bytes bigint, attempts integer, fence bigint,
               created_at timestamptz, timings jsonb)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH head AS (
        SELECT due.id, due.priority, due.attempts = 0 AND due.bytes <= small AS sociable
        FROM documents_ingestionjob due
        WHERE due.stage = wanted_stage AND (wanted IS NULL OR due.id = wanted)
          AND due.priority >= lowest AND (NOT only_small OR (due.attempts = 0 AND due.bytes <= small))
          AND ((due.state = 'queued' AND due.not_before <= now()) OR (due.state = 'running' AND due.lease_until < now()))
        ORDER BY due.priority, due.created_at LIMIT 1 FOR UPDATE SKIP LOCKED
    ), others AS (
        SELECT due.id FROM documents_ingestionjob due
        WHERE due.stage = wanted_stage AND wanted IS NULL AND due.state = 'queued' AND due.not_before <= now()
          AND due.attempts = 0 AND due.bytes <= small
          AND due.id <> (SELECT head.id FROM head) AND due.priority = (SELECT head.priority FROM head WHERE head.sociable)
        ORDER BY due.priority, due.created_at LIMIT at_most - 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE documents_ingestionjob j SET
        state = 'running', worker = claimer, lease_until = now() + lease, attempts = j.attempts + 1, fence = j.fence + 1
    WHERE j.id IN (SELECT head.id FROM head UNION ALL SELECT others.id FROM others)
    RETURNING j.id, j.tenant_id, j.collection_id, j.document_id, j.version, j.kind, j.base_version, j.base_revision,
              j.bytes, j.attempts, j.fence, j.created_at, j.timings
$$
"""
OVERVIEW = """
CREATE FUNCTION ledger_overview()
RETURNS TABLE (stage varchar, state varchar, jobs bigint, due bigint, oldest_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT j.stage, j.state, count(*),
           count(*) FILTER (WHERE (j.state = 'queued' AND j.not_before <= now())
                               OR (j.state = 'running' AND j.lease_until < now())),
           extract(epoch FROM now() - min(j.created_at) FILTER (WHERE j.kind = 'ingest'))
    FROM documents_ingestionjob j WHERE j.state IN ('queued', 'running', 'dead') GROUP BY j.stage, j.state
$$
"""
PENDING = """
CREATE FUNCTION ledger_pending(at_most bigint) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT count(*) FROM (
        SELECT 1 FROM documents_ingestionjob j WHERE j.state IN ('queued', 'running') LIMIT at_most
    ) counted
$$
"""
FORGET = """
CREATE FUNCTION ledger_forget(before timestamptz, at_most bigint) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH gone AS (
        DELETE FROM documents_ingestionjob j WHERE j.id IN (
            SELECT ended.id FROM documents_ingestionjob ended
            WHERE ended.finished_at < before AND ended.state IN ('done', 'dead', 'cancelled')
              AND NOT EXISTS (  -- an open run counts them
                  SELECT 1 FROM documents_reindex r
                  WHERE r.id = ended.reindex_id AND r.state IN ('running', 'paused')
              )
            LIMIT at_most FOR UPDATE SKIP LOCKED
        ) RETURNING 1
    )
    SELECT count(*) FROM gone
$$
"""
REINDEX_RUNNING = """
CREATE FUNCTION reindex_running() RETURNS TABLE (tenant_id uuid, collection_id uuid, id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT r.tenant_id, r.collection_id, r.id FROM documents_reindex r WHERE r.state = 'running' ORDER BY r.created_at
$$
"""
COLLECTIONS = """
CREATE FUNCTION reindex_collections() RETURNS TABLE (tenant_id uuid, id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT c.tenant_id, c.id FROM documents_collection c ORDER BY c.tenant_id
$$
"""
# Under row-level security a GIN index serves `@@` only when the operator's function is leakproof (ADR 0001). It takes
# a superuser; without one lexical search is right but slow, and the system check documents.W001 says so.
LEAKPROOF = """
DO $$ BEGIN
    ALTER FUNCTION pg_catalog.ts_match_vq(tsvector, tsquery) LEAKPROOF;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$
"""


class Migration(migrations.Migration):
    dependencies = [("documents", "0001_initial")]

    operations = [
        migrations.RunSQL([CLAIM], ["DROP FUNCTION ledger_claim"]),
        migrations.RunSQL([OVERVIEW], ["DROP FUNCTION ledger_overview"]),
        migrations.RunSQL([PENDING], ["DROP FUNCTION ledger_pending"]),
        migrations.RunSQL([FORGET], ["DROP FUNCTION ledger_forget"]),
        migrations.RunSQL([REINDEX_RUNNING], ["DROP FUNCTION reindex_running"]),
        migrations.RunSQL([COLLECTIONS], ["DROP FUNCTION reindex_collections"]),
        migrations.RunSQL([LEAKPROOF], migrations.RunSQL.noop),
    ]
