-- Which rows have which leaf numbers, span by span, those after one.
SELECT first, source, first_id, length FROM sweeper.leaves WHERE first > :after ORDER BY first LIMIT :limit
