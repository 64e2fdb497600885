-- How many leaves are numbered.
SELECT coalesce((SELECT first + count FROM sweeper.leaves ORDER BY first DESC LIMIT 1), 0)
