-- Feedback rows that may be due, in the order of their keys.
SELECT f.id::text AS id
FROM (
$probe
) AS f
WHERE f.id IS NOT NULL AND $after
ORDER BY f.id
LIMIT :limit
