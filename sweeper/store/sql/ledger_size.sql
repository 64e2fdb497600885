-- How many leaves are numbered.
SELECT coalesce((SELECT first + length FROM sweeper.leaves ORDER BY first DESC LIMIT 1), 0)
