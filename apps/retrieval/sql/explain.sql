-- name: leg_found
-- How many candidates one leg of a search finds by itself.
WITH {leg}
counted AS (SELECT count(*) FROM {name})
SELECT * FROM counted

-- name: leg_terms
-- The query's terms as the lexical leg sees them; its matches are not looked for.
WITH {leg}
seen AS (SELECT lexeme FROM terms)
SELECT lexeme FROM seen ORDER BY lexeme
