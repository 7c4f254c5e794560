"""Which spaces are complete for a collection, or have been: their vector index is not taken away (spaces.py)."""

from django.db import migrations

#: A build that runs again keeps the time when it was done.
USES = """
CREATE FUNCTION space_uses()
RETURNS TABLE (space_id uuid, serving bigint, second bigint, building bigint, complete bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT s.id,
           (SELECT count(*) FROM documents_collection c WHERE c.space_id = s.id),
           (SELECT count(*) FROM documents_collection c WHERE c.second_space_id = s.id),
           (SELECT count(*) FROM documents_spacebuild b WHERE b.space_id = s.id AND b.state = 'running'),
           (SELECT count(*) FROM documents_collection c WHERE c.second_space_id = s.id AND EXISTS (
                SELECT 1 FROM documents_spacebuild b
                WHERE b.collection_id = c.id AND b.space_id = s.id AND b.finished_at IS NOT NULL
           ))
    FROM documents_embeddingspace s
$$
"""
BEFORE = """
CREATE FUNCTION space_uses() RETURNS TABLE (space_id uuid, serving bigint, second bigint, building bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT s.id,
           (SELECT count(*) FROM documents_collection c WHERE c.space_id = s.id),
           (SELECT count(*) FROM documents_collection c WHERE c.second_space_id = s.id),
           (SELECT count(*) FROM documents_spacebuild b WHERE b.space_id = s.id AND b.state = 'running')
    FROM documents_embeddingspace s
$$
"""


class Migration(migrations.Migration):
    dependencies = [
        ("documents", "0006_drift"),
    ]

    operations = [
        migrations.RunSQL(["DROP FUNCTION space_uses", USES], ["DROP FUNCTION space_uses", BEFORE]),
    ]
