-- name: neighbours
-- Around each hit: the chunks from n before it to n after it, where they stand and under which headings, and, in the row
-- of the hit's own chunk, the text from the first of them to the last and the pages that it covers. In the version and
-- revision in which the hit was found: where these are others by now there is no row. (On Citus no snapshot spans two
-- statements.) The headings are a value and not a join: for a join the planner takes all chunks of the documents first,
-- and looks for the positions of each among the hits'.
SELECT hit.chunk_id, near.chunk_id, near.start, near."end",
       (SELECT c.heading_path FROM documents_chunk c WHERE c.document_id = v.document_id AND c.chunk_id = near.chunk_id),
       around.start,
       CASE WHEN near.chunk_id = hit.chunk_id THEN substr(v.text, around.start + 1, around."end" - around.start) END,
       CASE WHEN near.chunk_id = hit.chunk_id THEN v.page_starts[pages.first:pages.last] END,
       CASE WHEN near.chunk_id = hit.chunk_id THEN v.page_numbers[pages.first:pages.last] END
FROM unnest(%(documents)s::uuid[], %(chunks)s::uuid[], %(versions)s::bigint[], %(revisions)s::bigint[])
         AS hit (document_id, chunk_id, version, revision)
JOIN documents_documentversion v
     ON v.document_id = hit.document_id AND v.version = hit.version AND v.revision = hit.revision
CROSS JOIN LATERAL (SELECT array_position(v.chunk_ids, hit.chunk_id) AS ordinal) own
CROSS JOIN LATERAL (SELECT greatest(1, own.ordinal - %(neighbours)s::int) AS first,
                           least(cardinality(v.chunk_ids), own.ordinal + %(neighbours)s::int) AS last) reach
CROSS JOIN LATERAL (SELECT v.starts[reach.first] AS start, v.ends[reach.last] AS "end") around
CROSS JOIN LATERAL (SELECT width_bucket(around.start, v.page_starts) AS first,
                           width_bucket(around."end" - 1, v.page_starts) AS last) pages
CROSS JOIN LATERAL unnest(v.chunk_ids[reach.first:reach.last], v.starts[reach.first:reach.last],
                          v.ends[reach.first:reach.last]) WITH ORDINALITY AS near (chunk_id, start, "end", place)
ORDER BY hit.chunk_id, near.place
