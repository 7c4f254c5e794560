-- name: drift
-- What was measured of a collection last, in this space.
SELECT centroids, mean, deviation, taken_at, epoch FROM documents_drift
WHERE collection_id = %(collection)s AND space_id = %(space)s

-- name: sample_vectors
-- Of the live chunks with an id below a bound: ids are spread evenly.
SELECT vector_send(e.embedding::vector) FROM {table} e
WHERE e.live AND e.collection_id = %(collection)s AND e.chunk_id <= %(bound)s LIMIT %(most)s

-- name: new_vectors
-- Of the chunks that have come since, the newest.
SELECT vector_send(e.embedding::vector)
FROM documents_chunk c JOIN {table} e ON e.document_id = c.document_id AND e.chunk_id = c.chunk_id AND e.live
WHERE c.collection_id = %(collection)s AND c.live_from > %(since)s AND c.retired_in_version IS NULL
ORDER BY c.live_from DESC LIMIT %(most)s

-- name: take_drift
INSERT INTO documents_drift (collection_id, tenant_id, space_id, centroids, mean, deviation, taken_at, epoch, drift)
VALUES (%(collection)s, %(tenant)s, %(space)s, %(centroids)b, %(mean)s, %(deviation)s, %(now)s, %(epoch)s, 0)
ON CONFLICT (collection_id) DO UPDATE SET
    space_id = EXCLUDED.space_id, centroids = EXCLUDED.centroids, mean = EXCLUDED.mean, epoch = EXCLUDED.epoch,
    deviation = EXCLUDED.deviation, taken_at = EXCLUDED.taken_at, drift = 0

-- name: set_drift
UPDATE documents_drift SET drift = %(drift)s, epoch = %(epoch)s WHERE collection_id = %(collection)s

-- name: forget_drift
-- Means of vectors may be near an erased document's: they are taken anew.
DELETE FROM documents_drift WHERE collection_id = %(collection)s
