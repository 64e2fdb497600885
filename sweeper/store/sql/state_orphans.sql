-- The runs that tombstones name and that are not there, each with its tombstones' count and the first of them.
SELECT t.run_id, count(*) AS tombstones, min(t.id) AS first_id
FROM sweeper.tombstones t
LEFT JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.id IS NULL
GROUP BY t.run_id
ORDER BY t.run_id
