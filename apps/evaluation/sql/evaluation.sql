-- name: vectors
-- Every live vector of a collection with the document that it is of, for a scan outside of the database.
SELECT d.source_uri, vector_send(e.embedding::vector)
FROM {table} e JOIN documents_document d ON d.id = e.document_id
WHERE e.live AND e.collection_id = %(collection)s
ORDER BY e.document_id, e.chunk_id
