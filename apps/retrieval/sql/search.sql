-- name: scopes
-- The collections that a search is about, with their counters and their space, as one cheap read.
SELECT c.tenant_id, c.id, c.slug, c.epoch, c.documents, c.chunks, c.tokens, c.language,
       s.id, s.slug, s.backend, s.model, s.revision, s.dimensions, s.metric, s.storage, s.index_method, s.index_parameters
FROM documents_collection c JOIN documents_embeddingspace s ON s.id = c.space_id
WHERE %(slugs)s::text[] IS NULL OR c.slug = ANY(%(slugs)s::text[])
ORDER BY c.slug

-- name: passing
-- Of a sample of the live documents: how many there are, and for how many a filter holds. Ids are hashes, unless clients
-- have chosen them, so that the lowest are a fair sample.
SELECT count(*), count(*) FILTER (WHERE {filter})
FROM (
    SELECT * FROM documents_document
    WHERE collection_id = ANY(%(collections)s) AND live_version IS NOT NULL ORDER BY id LIMIT {sample}
) d

-- name: found
-- Of how many live documents a filter lets pass, counted up to a bound, where its terms find them through an index.
SELECT count(*) FROM (
    SELECT d.id FROM documents_document d
    WHERE d.collection_id = ANY(%(collections)s) AND d.live_version IS NOT NULL AND {asked} AND {filter} LIMIT %(most)s
) found

-- name: asked
-- The terms of a document's metadata: they find all for which the filter holds, and maybe others.
d.attributes @@ %(attributes)s::tsquery

-- name: holds
-- Beside a row of a chunk or a vector. As a value and not as a join: the order of the index scan stays.
 AND (SELECT {filter} FROM documents_document d WHERE d.id = {row}.document_id)

-- name: search
-- One statement per search, one snapshot. Legs carry what they rank by; the join to the live version, its positions and
-- the document happens once, for the fused candidates. search.py composes it from the fragments below; every value is a
-- parameter.
WITH {legs}
ranked AS (
    {fusion}
),
best AS MATERIALIZED (
    SELECT document_id, chunk_id, score, dense_score, lexical_score FROM ranked
    ORDER BY score DESC, chunk_id LIMIT %(fetch)s
)
SELECT b.chunk_id, b.document_id, d.live_version, d.version, d.live_revision, d.collection_id, d.source_uri, d.title, d.metadata,
       c.heading_path, c.text, encode(c.sha256, 'hex'), v.starts[p.ordinal], v.ends[p.ordinal],
       v.page_starts[pages.first:pages.last], v.page_numbers[pages.first:pages.last], v.page_numbers[pages.first],
       b.score, b.dense_score, b.lexical_score
FROM best b
JOIN documents_chunk c ON c.document_id = b.document_id AND c.chunk_id = b.chunk_id AND c.retired_in_version IS NULL
JOIN documents_document d ON d.id = b.document_id
JOIN documents_documentversion v ON v.document_id = b.document_id AND v.version = d.live_version
CROSS JOIN LATERAL (SELECT array_position(v.chunk_ids, b.chunk_id) AS ordinal) p
CROSS JOIN LATERAL (SELECT width_bucket(v.starts[p.ordinal], v.page_starts) AS first,
                           width_bucket(v.ends[p.ordinal] - 1, v.page_starts) AS last) pages
WHERE p.ordinal IS NOT NULL
ORDER BY b.score DESC, b.chunk_id

-- name: dense_index
-- Nearest live vectors through the index: ascending ORDER BY on the operator itself, and a LIMIT.
dense AS MATERIALIZED (
    SELECT document_id, chunk_id, 1 - (embedding {operator} %(vector)s::{type}) AS similarity
    FROM {table} e
    WHERE live AND collection_id = ANY(%(collections)s){holds}
    ORDER BY embedding {operator} %(vector)s::{type} LIMIT %(candidates)s
),

-- name: dense_binary
-- The same through an index of bits, one for each dimension's sign: more candidates than wanted, which are compared
-- again by the vectors themselves.
dense AS MATERIALIZED (
    SELECT document_id, chunk_id, 1 - (embedding {operator} %(vector)s::{type}) AS similarity
    FROM (
        SELECT document_id, chunk_id, embedding FROM {table} e
        WHERE live AND collection_id = ANY(%(collections)s){holds}
        ORDER BY {bits} <~> {asked_bits} LIMIT %(oversampled)s
    ) near
    ORDER BY (embedding {operator} %(vector)s::{type}) + 0 LIMIT %(candidates)s
),

-- name: dense_exact
-- Few rows: scan them all through the btree. Adding 0 keeps the planner from taking the vector index, which would
-- lose rows behind the filter.
dense AS MATERIALIZED (
    SELECT document_id, chunk_id, 1 - (embedding {operator} %(vector)s::{type}) AS similarity
    FROM {table} e
    WHERE live AND collection_id = ANY(%(collections)s){holds}
    ORDER BY (embedding {operator} %(vector)s::{type}) + 0 LIMIT %(candidates)s
),

-- name: dense_filtered
-- A filter that few documents pass: the vectors of those, all of them.
dense AS MATERIALIZED (
    SELECT e.document_id, e.chunk_id, 1 - (e.embedding {operator} %(vector)s::{type}) AS similarity
    FROM documents_document d JOIN {table} e ON e.document_id = d.id AND e.live
    WHERE d.collection_id = ANY(%(collections)s) AND d.live_version IS NOT NULL AND {asked} AND {filter}
    ORDER BY (e.embedding {operator} %(vector)s::{type}) + 0 LIMIT %(candidates)s
),

-- name: lexical
-- BM25 over Postgres' own lexemes, with OR semantics. Every match is scored up to a bound; beyond it the first ones.
-- Term frequency comes from ts_rank of the single term: with equal weights it is sum(1/j^2, j = 1..tf) / (pi^2/6), so
-- tf = 0.608 / (1 - rank) - 0.5 to within 5 percent (the tail of the Basel sum is 1/(tf + 0.5)). No unnesting of vectors.
terms AS MATERIALIZED (
    SELECT row_number() OVER () AS number, lexeme, max(tf) AS weight,
           ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery AS term
    FROM unnest(%(languages)s::regconfig[]) AS language,
         LATERAL (SELECT t.lexeme, coalesce(cardinality(t.positions), 1) AS tf
                  FROM unnest(to_tsvector(language, %(query)s)) t) found
    GROUP BY lexeme LIMIT {max_terms}
),
wanted AS MATERIALIZED (
    SELECT string_agg(term::text, ' | ')::tsquery AS any_term, array_agg(term ORDER BY number) AS each_term FROM terms
),
matches AS MATERIALIZED (
    SELECT c.document_id, c.chunk_id, c.tokens,
           (SELECT array_agg(ts_rank('{{1,1,1,1}}', c.tsv, t.term) ORDER BY t.number)
            FROM unnest(w.each_term) WITH ORDINALITY AS t (term, number)) AS ranks
    FROM wanted w JOIN documents_chunk c ON c.tsv @@ w.any_term
    WHERE c.retired_in_version IS NULL AND c.collection_id = ANY(%(collections)s){holds}
    LIMIT {max_matches}
),
occurrences AS (
    SELECT m.document_id, m.chunk_id, m.tokens, r.number, 0.608 / greatest(1 - r.rank, 0.0001) - 0.5 AS tf
    FROM matches m, unnest(m.ranks) WITH ORDINALITY AS r (rank, number) WHERE r.rank > 0
),
weights AS (
    SELECT number, ln(1 + (greatest(%(chunks)s, count(*)) - count(*) + 0.5) / (count(*) + 0.5)) AS idf
    FROM occurrences GROUP BY number
),
lexical AS MATERIALIZED (
    SELECT o.document_id, o.chunk_id,
           sum(t.weight * w.idf * o.tf * ({k1} + 1)
               / (o.tf + {k1} * (1 - {b} + {b} * o.tokens / %(average)s))) AS relevance
    FROM occurrences o JOIN weights w USING (number) JOIN terms t USING (number)
    GROUP BY o.document_id, o.chunk_id
    ORDER BY relevance DESC, o.chunk_id LIMIT %(candidates)s
),

-- name: fuse_dense
SELECT document_id, chunk_id, similarity AS score, similarity AS dense_score, NULL::float8 AS lexical_score FROM dense

-- name: fuse_lexical
SELECT document_id, chunk_id, relevance::float8 AS score, NULL::float8 AS dense_score, relevance::float8 AS lexical_score
FROM lexical

-- name: fuse_hybrid
-- Reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009), k = 60.
SELECT document_id, chunk_id,
       (coalesce(1.0 / ({rrf} + dr.rank), 0) + coalesce(1.0 / ({rrf} + lr.rank), 0))::float8 AS score,
       dr.similarity AS dense_score, lr.relevance::float8 AS lexical_score
FROM (SELECT *, row_number() OVER (ORDER BY similarity DESC, chunk_id) AS rank FROM dense) dr
FULL JOIN (SELECT *, row_number() OVER (ORDER BY relevance DESC, chunk_id) AS rank FROM lexical) lr
     USING (document_id, chunk_id)
