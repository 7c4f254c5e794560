"""The questions that are asked before a tenant can be set; each returns identifiers and no content.

They run as the tables' owner, whom the `definer_reads` policies let see every tenant's rows.
"""

from django.db import migrations

RECOGNISE = """
CREATE FUNCTION access_recognise(key_sha256 bytea)
RETURNS TABLE (
    id uuid, tenant_id uuid, name varchar, scopes varchar[], requests_per_minute integer, tokens_per_minute integer
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT k.id, k.tenant_id, k.name, k.scopes, k.requests_per_minute, k.tokens_per_minute FROM access_apikey k
    WHERE k.sha256 = key_sha256 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
$$
"""
TENANT_OF_USER = """
CREATE FUNCTION access_tenant_of_user(wanted_name varchar, wanted_id bigint) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT u.tenant_id FROM access_user u WHERE u.username = wanted_name OR u.id = wanted_id
$$
"""
# Rows that hang on a curator are as visible as the curator: the admin's log names documents.
OF_CURATORS = ("django_admin_log", "access_user_groups", "access_user_user_permissions")
WALLS = tuple(
    statement
    for table in OF_CURATORS
    for statement in (
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY tenant_wall ON {table} USING (user_id IN (SELECT id FROM access_user))",
    )
)
UNWALL = tuple(
    statement
    for table in OF_CURATORS
    for statement in (f"DROP POLICY tenant_wall ON {table}", f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
)


class Migration(migrations.Migration):
    dependencies = [("access", "0001_initial"), ("admin", "0003_logentry_add_action_flag_choices")]

    operations = [
        migrations.RunSQL([RECOGNISE], ["DROP FUNCTION access_recognise"]),
        migrations.RunSQL([TENANT_OF_USER], ["DROP FUNCTION access_tenant_of_user"]),
        migrations.RunSQL(WALLS, UNWALL),
    ]
