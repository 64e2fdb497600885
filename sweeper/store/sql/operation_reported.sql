-- What the newest report on the present found.
SELECT e.at, e.details FROM sweeper.events e
WHERE e.kind = 'reported' AND e.details ->> 'store' = :store AND CAST(e.details ->> 'present' AS boolean)
ORDER BY e.id DESC
LIMIT 1
