-- name: scopes
-- The collections that a search is about, with their counters and their space, as one cheap read.
SELECT c.tenant_id, c.id, c.slug, c.epoch, c.documents, c.chunks, c.tokens, c.language, c.consistency_window_seconds,
       coalesce(l.generation, 0), coalesce(l.chunks, 0), coalesce(l.erasures, 0), c.canary_percent,
       s.id, s.slug, s.backend, s.model, s.revision, s.dimensions, s.metric, s.storage, s.index_method,
       s.index_parameters::text,
       t.id, t.slug, t.backend, t.model, t.revision, t.dimensions, t.metric, t.storage, t.index_method,
       t.index_parameters::text
FROM documents_collection c JOIN documents_embeddingspace s ON s.id = c.space_id
LEFT JOIN documents_embeddingspace t ON t.id = c.second_space_id
LEFT JOIN documents_lexicon l ON l.collection_id = c.id
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
    WHERE d.collection_id = ANY(%(collections)s) AND d.live_version IS NOT NULL AND {passes} LIMIT %(most)s
) found

-- name: passes
-- Where a filter asks something of the terms of a document's metadata: these find all for which it holds, and maybe
-- others.
d.attributes @@ %(attributes)s::tsquery AND {filter}

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
    SELECT document_id, chunk_id, score, dense_score, lexical_score, near FROM ranked
    ORDER BY score DESC, chunk_id LIMIT %(fetch)s
)
SELECT b.chunk_id, b.document_id, v.version, d.version, d.live_version IS NULL, d.pending_since, v.revision, d.collection_id, d.source_uri, d.title, d.metadata,
       c.heading_path, c.text, encode(c.sha256, 'hex'), v.starts[p.ordinal], v.ends[p.ordinal],
       v.page_starts[pages.first:pages.last], v.page_numbers[pages.first:pages.last], v.page_numbers[pages.first],
       b.score, b.dense_score, b.lexical_score, b.near,
       coalesce(v.source_updated_at, v.accepted_at){vector}
FROM best b
JOIN documents_chunk c ON c.document_id = b.document_id AND c.chunk_id = b.chunk_id AND {lived}
JOIN documents_document d ON d.id = b.document_id
{placed}
CROSS JOIN LATERAL (SELECT array_position(v.chunk_ids, b.chunk_id) AS ordinal) p
CROSS JOIN LATERAL (SELECT width_bucket(v.starts[p.ordinal], v.page_starts) AS first,
                           width_bucket(v.ends[p.ordinal] - 1, v.page_starts) AS last) pages
WHERE p.ordinal IS NOT NULL
ORDER BY b.score DESC, b.chunk_id

-- name: vector
-- A hit's vector, where results are diversified. As a value and not as a join: for a join the planner may bring all
-- chunks of a document together with all its vectors first.
, (SELECT vector_send(e.embedding::vector) FROM {table} e WHERE e.document_id = d.id AND e.chunk_id = b.chunk_id)

-- name: lived_now
c.retired_in_version IS NULL

-- name: placed_now
JOIN documents_documentversion v ON v.document_id = b.document_id AND v.version = d.live_version

-- name: dense_index
-- Nearest live vectors through the index: ascending ORDER BY on the operator itself, and a LIMIT.
dense AS MATERIALIZED (
    SELECT document_id, chunk_id, 1 - (embedding {operator} %(vector)s::{type}) AS similarity
    FROM {table} e
    WHERE live AND collection_id = ANY(%(collections)s){holds}
    ORDER BY embedding {operator} %(vector)s::{type} LIMIT {candidates}
),

-- name: nearest
-- How near the nearest are that a leg finds: for comparing one way with another.
WITH {leg} SELECT similarity FROM dense ORDER BY similarity DESC LIMIT {k}

-- name: dense_binary
-- The same through an index of bits, one for each dimension's sign: more candidates than wanted, which are compared
-- again by the vectors themselves.
dense AS MATERIALIZED (
    SELECT document_id, chunk_id, 1 - (embedding {operator} %(vector)s::{type}) AS similarity
    FROM (
        SELECT document_id, chunk_id, embedding FROM {table} e
        WHERE live AND collection_id = ANY(%(collections)s){holds}
        ORDER BY {bits} <~> {asked_bits} LIMIT {oversampled}
    ) near
    ORDER BY (embedding {operator} %(vector)s::{type}) + 0 LIMIT {candidates}
),

-- name: dense_exact
-- Few rows: scan them all through the btree. Adding 0 keeps the planner from taking the vector index, which would
-- lose rows behind the filter.
dense AS MATERIALIZED (
    SELECT document_id, chunk_id, 1 - (embedding {operator} %(vector)s::{type}) AS similarity
    FROM {table} e
    WHERE live AND collection_id = ANY(%(collections)s){holds}
    ORDER BY (embedding {operator} %(vector)s::{type}) + 0 LIMIT {candidates}
),

-- name: dense_filtered
-- A filter that few documents pass: the vectors of those, all of them.
dense AS MATERIALIZED (
    SELECT e.document_id, e.chunk_id, 1 - (e.embedding {operator} %(vector)s::{type}) AS similarity
    FROM documents_document d JOIN {table} e ON e.document_id = d.id AND e.live
    WHERE d.collection_id = ANY(%(collections)s) AND d.live_version IS NOT NULL AND {passes}
    ORDER BY (e.embedding {operator} %(vector)s::{type}) + 0 LIMIT {candidates}
),

-- name: lexical
-- BM25 of all chunks that have any of the terms, counted on the way. Term frequency comes from ts_rank of the single
-- term: with equal weights it is sum(1/j^2, j = 1..tf) / (pi^2/6), so tf = 0.608 / (1 - rank) - 0.5 to within 5 percent
-- (the tail of the Basel sum is 1/(tf + 0.5)). No unnesting of vectors.
matches AS MATERIALIZED (
    SELECT c.document_id, c.chunk_id, c.tokens, ARRAY[{ranks}]::float8[] AS ranks
    FROM {chunks}
    WHERE c.tsv @@ %(plan)s::tsquery AND {lived} AND c.collection_id = ANY(%(collections)s){holds}
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
           sum((%(weights)s::float8[])[o.number] * w.idf * o.tf * ({k1} + 1)
               / (o.tf + {k1} * (1 - {b} + {b} * o.tokens / %(average)s))) AS relevance
    FROM occurrences o JOIN weights w USING (number)
    GROUP BY o.document_id, o.chunk_id
    ORDER BY relevance DESC, o.chunk_id LIMIT {candidates}
),

-- name: rank
ts_rank('{{1,1,1,1}}', c.tsv, %({term})s::tsquery)

-- name: rank_whole
-- Of a term that is there or not: as if it were there once.
CASE WHEN c.tsv @@ %({term})s::tsquery THEN 0.608 ELSE 0 END

-- name: lexical_counted
-- The same with weights that are known, of the chunks that lexical.plan has chosen: one pass, its top-k on each shard.
lexical AS MATERIALIZED (
    SELECT c.document_id, c.chunk_id, ({relevance})::float8 AS relevance
    FROM {chunks}
    WHERE c.tsv @@ %(plan)s::tsquery AND {lived} AND c.collection_id = ANY(%(collections)s){holds}
    ORDER BY relevance DESC, c.chunk_id LIMIT {candidates}
),

-- name: part
-- weight * tf / (tf + norm), 0 where the rank is; the rank stands here once, so that it is computed once.
%({weight})s * coalesce(1 - 1 / (1 + (0.608 / (1.0001 - nullif({rank}, 0)) - 0.5)
    / ({k1} * (1 - {b} + {b} * c.tokens / %(average)s))), 0)

-- name: chunks_passing
-- Where few documents pass a filter, their chunks are looked at, and not all that have the words.
documents_document d JOIN documents_chunk c ON c.document_id = d.id AND d.live_version IS NOT NULL AND {passes}

-- name: terms
-- What a query is made of, in each of the languages: words (their lexemes), phrases and beginnings (as tsqueries); how
-- often; and how many chunks of the collections have it, at each level.
WITH counted AS (
    SELECT * FROM unnest(%(collections)s::uuid[], %(generations)s::bigint[]) AS l (collection_id, generation)
),
words AS (
    SELECT t.lexeme, max(coalesce(cardinality(t.positions), 1)) AS times
    FROM unnest(%(languages)s::regconfig[]) AS language, unnest(to_tsvector(language, %(words)s)) AS t
    GROUP BY t.lexeme ORDER BY t.lexeme LIMIT 128
)
SELECT 'word', w.lexeme, w.times, ARRAY(
    SELECT (SELECT coalesce(sum(x.chunks), 0)::float8
            FROM counted l JOIN documents_lexeme x USING (collection_id, generation) WHERE x.lexeme = w.lexeme || level)
    FROM unnest(%(levels)s::text[]) WITH ORDINALITY AS t (level, number) ORDER BY number
)
FROM words w
UNION ALL
SELECT 'phrase', phrased::text, 1, '{}'
FROM (
    SELECT DISTINCT phraseto_tsquery(language, phrase) AS phrased
    FROM unnest(%(languages)s::regconfig[]) AS language, unnest(%(phrases)s::text[]) AS phrase
) p WHERE numnode(phrased) > 1
UNION ALL
SELECT 'beginning', begun::text, 1, ARRAY[(
    SELECT coalesce(sum(x.chunks), 0)::float8 FROM counted l JOIN documents_lexeme x USING (collection_id, generation)
    WHERE x.lexeme >= lower(b.beginning) AND x.lexeme < lower(b.beginning) || chr(1114111) AND right(x.lexeme, 1) > chr(3)
)]
FROM (
    SELECT DISTINCT ON (begun) begun, beginning
    FROM unnest(%(languages)s::regconfig[]) AS language, unnest(%(beginnings)s::text[]) AS beginning,
         to_tsquery(language, beginning || ':*') AS begun
) b WHERE numnode(begun) > 0

-- name: alike
-- The lexemes of the collections with the same first letter and about the same length.
SELECT x.lexeme, sum(x.chunks)::float8
FROM unnest(%(collections)s::uuid[], %(generations)s::bigint[]) AS l (collection_id, generation)
JOIN documents_lexeme x USING (collection_id, generation)
WHERE x.lexeme >= %(first)s AND x.lexeme < %(next)s AND length(x.lexeme) BETWEEN %(least)s AND %(most)s
  AND right(x.lexeme, 1) > chr(3)
GROUP BY x.lexeme

-- name: fuse_dense
-- near: how many the leg has found.
SELECT document_id, chunk_id, similarity AS score, similarity AS dense_score, NULL::float8 AS lexical_score,
       count(*) OVER () AS near
FROM dense

-- name: fuse_lexical
SELECT document_id, chunk_id, relevance::float8 AS score, NULL::float8 AS dense_score, relevance::float8 AS lexical_score,
       0 AS near
FROM lexical

-- name: fuse_hybrid
-- Weighted sum of the two scores, each brought to 0..1: similarity between the lowest and the highest of the
-- candidates, relevance as a share of the highest. (Ranks alone tell nothing of how much better the first is.)
SELECT document_id, chunk_id,
       (%(lexical_weight)s::float8 * coalesce(relevance / nullif(max(relevance) OVER (), 0), 0)
        + (1 - %(lexical_weight)s::float8) * coalesce((similarity - min(similarity) OVER ())
                                          / nullif(max(similarity) OVER () - min(similarity) OVER (), 0),
                                          (similarity IS NOT NULL)::int, 0))::float8 AS score,
       similarity AS dense_score, relevance::float8 AS lexical_score, count(similarity) OVER () AS near
FROM dense FULL JOIN lexical USING (document_id, chunk_id)
