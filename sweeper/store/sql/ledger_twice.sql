-- The first row that has two leaf numbers.
SELECT l.source, l.first_id AS id, l.first AS leaf
FROM (
    SELECT *, max(first_id + (length - 1)) OVER (
        PARTITION BY source ORDER BY first_id, first ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS before
    FROM sweeper.leaves
) l
WHERE l.first_id <= l.before
ORDER BY l.first LIMIT 1
