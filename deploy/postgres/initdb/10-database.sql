-- What a superuser does once before ragsite can own its database: the counterpart of ragsite/embedded/bootstrap.py
-- for a server in a container. The image runs it when its volume is empty. Against another server, by hand:
--     POSTGRES_PASSWORD=... psql "postgresql://SUPERUSER@HOST/postgres" -f deploy/postgres/initdb/10-database.sql
-- The application's role is made by `manage.py migrate`, as the owner, so that the owner may set its password.
\set ON_ERROR_STOP on
\getenv owner_password POSTGRES_PASSWORD

CREATE ROLE ragsite_owner LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB CREATEROLE PASSWORD :'owner_password';
CREATE DATABASE ragsite OWNER ragsite_owner ENCODING 'UTF8' TEMPLATE template0;

\connect ragsite
CREATE EXTENSION vector WITH SCHEMA public;
CREATE EXTENSION pg_trgm WITH SCHEMA public;
CREATE EXTENSION unaccent WITH SCHEMA public;
CREATE EXTENSION btree_gin WITH SCHEMA public;
CREATE EXTENSION pg_prewarm WITH SCHEMA public;

-- Behind row-level security the planner checks a condition before the tenant's own only if it is leakproof, so
-- without this every lexical search would read all rows instead of the GIN index (docs/adr/0001). `@@` is safe to
-- call so: it raises no error and tells nothing that depends on a row it rejects. Being a catalogue's change it
-- needs a superuser and is lost by pg_upgrade: run it again then.
ALTER FUNCTION pg_catalog.ts_match_vq(tsvector, tsquery) LEAKPROOF;

ALTER SCHEMA public OWNER TO ragsite_owner;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
