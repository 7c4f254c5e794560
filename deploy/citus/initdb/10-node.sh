#!/bin/sh
# What every node needs before it is one of a cluster: run by the image when its volume is empty. The counterpart of
# deploy/postgres/initdb for docker-compose.citus.yml; by hand, see docs/howto/citus.md.
set -eu

# Nodes sign in to each other as whoever asks: the superuser, the owner or the application.
umask 077
for role in "postgres:$POSTGRES_PASSWORD" "ragsite_owner:$OWNER_PASSWORD" "ragsite_app:$APP_PASSWORD"; do
    echo "*:*:*:$role"
done >"$HOME/.pgpass"

psql --set ON_ERROR_STOP=1 --username postgres --dbname postgres <<'SQL'
\getenv owner_password OWNER_PASSWORD
CREATE ROLE ragsite_owner LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB CREATEROLE PASSWORD :'owner_password';
CREATE DATABASE ragsite OWNER ragsite_owner ENCODING 'UTF8' TEMPLATE template0;
\connect ragsite
CREATE EXTENSION citus;
SET citus.enable_ddl_propagation = off; -- each node does this by itself
CREATE EXTENSION vector WITH SCHEMA public;
CREATE EXTENSION pg_trgm WITH SCHEMA public;
CREATE EXTENSION unaccent WITH SCHEMA public;
CREATE EXTENSION btree_gin WITH SCHEMA public;
CREATE EXTENSION pg_prewarm WITH SCHEMA public;
-- See deploy/postgres/initdb/10-database.sql.
ALTER FUNCTION pg_catalog.ts_match_vq(tsvector, tsquery) LEAKPROOF;
ALTER SCHEMA public OWNER TO ragsite_owner;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
SQL
