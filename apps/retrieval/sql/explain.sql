-- name: leg_found
-- How many candidates one leg of a search finds by itself.
WITH {leg}
counted AS (SELECT count(*) FROM {name})
SELECT * FROM counted
