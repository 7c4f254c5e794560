-- name: lexicons_due
SELECT tenant_id, collection_id FROM lexicons_due()

-- name: lexicon
-- What a collection is now, and what was counted of it last.
SELECT c.chunks, c.epoch, coalesce(l.generation, 0), coalesce(l.erasures, 0)
FROM documents_collection c LEFT JOIN documents_lexicon l ON l.collection_id = c.id
WHERE c.id = %(collection)s

-- name: count_lexemes
-- In how many of the live chunks with an id below a bound each lexeme is. (Ids are spread evenly.)
SELECT lexeme, count(*)
FROM documents_document d
JOIN documents_chunk c ON c.document_id = d.id AND c.retired_in_version IS NULL
CROSS JOIN LATERAL unnest(tsvector_to_array(c.tsv)) AS lexeme
WHERE d.collection_id = %(collection)s AND c.chunk_id <= %(bound)s
GROUP BY lexeme ORDER BY count(*) DESC, lexeme LIMIT %(most)s

-- name: write_lexemes
INSERT INTO documents_lexeme (collection_id, generation, lexeme, tenant_id, chunks)
SELECT %(collection)s, %(generation)s, w.lexeme, %(tenant)s, w.chunks
FROM unnest(%(lexemes)b::text[], %(chunks)b::bigint[]) AS w (lexeme, chunks)

-- name: hold_lexicon
-- Waits for an erasure, and lets one wait.
INSERT INTO documents_lexicon AS l (collection_id, tenant_id, generation, chunks, epoch, erasures)
VALUES (%(collection)s, %(tenant)s, 0, 0, 0, %(erasures)s)
ON CONFLICT (collection_id) DO UPDATE SET erasures = l.erasures + EXCLUDED.erasures
RETURNING l.generation, l.erasures

-- name: set_lexicon
UPDATE documents_lexicon SET
    generation = %(generation)s, chunks = %(chunks)s, epoch = %(epoch)s, counted_at = %(now)s
WHERE collection_id = %(collection)s

-- name: clear_lexemes
-- All but one generation.
DELETE FROM documents_lexeme WHERE collection_id = %(collection)s AND generation <> %(generation)s

-- name: lexemes_of
-- In how many of a document's chunks, retired ones included, each lexeme is.
SELECT lexeme, count(*) FROM documents_chunk c CROSS JOIN LATERAL unnest(tsvector_to_array(c.tsv)) AS lexeme
WHERE c.document_id = %(document)s GROUP BY lexeme

-- name: subtract_lexemes
UPDATE documents_lexeme x SET chunks = x.chunks - own.chunks
FROM unnest(%(lexemes)b::text[], %(chunks)b::bigint[]) AS own (lexeme, chunks)
WHERE x.collection_id = %(collection)s AND x.lexeme = own.lexeme

-- name: drop_lexemes
DELETE FROM documents_lexeme WHERE collection_id = %(collection)s AND chunks <= 0
