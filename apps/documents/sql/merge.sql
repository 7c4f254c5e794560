-- name: known_sources
-- The last column: is the content sound, so that the same content again is no work?
SELECT source_uri, content_sha256, media_type, deleted_at IS NULL AND erased_at IS NULL AND error IS NULL
FROM documents_document WHERE collection_id = %(collection)s AND source_uri = ANY(%(source_uris)b)

-- name: create_load_document
-- STORAGE as the tables have it: a value that is compressed here stays so there.
CREATE TEMPORARY TABLE IF NOT EXISTS load_document (
    id uuid, source_uri text, given_title text, title text, metadata jsonb, attributes text, version bigint,
    sha256 bytea, media_type text, filename text, bytes bigint,
    data bytea STORAGE EXTERNAL, text text STORAGE EXTERNAL, characters bigint,
    parsed_media_type text, parser text, blob_uri text, chunk_ids uuid[], starts int[], ends int[],
    page_starts int[], page_numbers int[], notes jsonb, source_updated_at timestamptz
) ON COMMIT DELETE ROWS

-- name: create_load_halfvec_chunk
CREATE TEMPORARY TABLE IF NOT EXISTS load_halfvec_chunk (
    document_id uuid, chunk_id uuid, version bigint, text text STORAGE EXTERNAL, words text, sha256 bytea,
    tokens int, heading_path text[], embedding halfvec
) ON COMMIT DELETE ROWS

-- name: create_load_vector_chunk
CREATE TEMPORARY TABLE IF NOT EXISTS load_vector_chunk (
    document_id uuid, chunk_id uuid, version bigint, text text STORAGE EXTERNAL, words text, sha256 bytea,
    tokens int, heading_path text[], embedding vector
) ON COMMIT DELETE ROWS

-- name: merge_documents
-- The guard: whatever has the id already is not touched, and no row comes back for it.
INSERT INTO documents_document AS d
    (id, tenant_id, collection_id, source_uri, given_title, title, metadata, attributes, version, live_version,
     content_sha256, media_type, state, created_at, updated_at)
SELECT id, %(tenant)s, %(collection)s, source_uri, given_title,
       CASE WHEN given_title = '' THEN title ELSE given_title END, metadata, attributes::tsvector, version, version,
       sha256, media_type, 'live', %(now)s, %(now)s
FROM load_document ORDER BY id
ON CONFLICT (id) DO NOTHING
RETURNING d.id

-- name: keep_merged
DELETE FROM load_document WHERE id <> ALL(%(ids)b)

-- name: merge_versions
INSERT INTO documents_documentversion
    (document_id, version, tenant_id, sha256, media_type, declared_type, filename, bytes, blob_uri, title, text,
     characters, chunk_ids, starts, ends, page_starts, page_numbers, notes, parser, chunker, source_updated_at,
     accepted_at, published_at)
SELECT id, version, %(tenant)s, sha256, parsed_media_type, media_type, filename, bytes, blob_uri, title, text,
       characters, chunk_ids, starts, ends, page_starts, page_numbers, notes, parser, %(chunker)s, source_updated_at,
       %(now)s, %(now)s
FROM load_document

-- name: merge_blobs
INSERT INTO documents_blob (document_id, version, part, tenant_id, data)
SELECT id, version, 0, %(tenant)s, data FROM load_document

-- name: merge_chunks
INSERT INTO documents_chunk
    (document_id, chunk_id, tenant_id, collection_id, text, sha256, tokens, heading_path, live_from_version, live_from,
     tsv)
SELECT document_id, chunk_id, %(tenant)s, %(collection)s, text, sha256, tokens, heading_path, version, %(now)s,
       {tsv}
FROM {table}

-- name: merge_embeddings
INSERT INTO {into} (document_id, chunk_id, tenant_id, collection_id, live, embedding)
SELECT document_id, chunk_id, %(tenant)s, %(collection)s, true, embedding::{type} FROM {table}
