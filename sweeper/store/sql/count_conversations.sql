-- How many conversations there are, counted no further than a limit.
SELECT count(*) FROM (SELECT 1 FROM conversations LIMIT :limit) AS c
