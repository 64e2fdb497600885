-- Which rows have which leaf numbers, run by run, those after a run.
SELECT first, source, first_id, length FROM sweeper.leaves WHERE first > :after ORDER BY first LIMIT :limit
