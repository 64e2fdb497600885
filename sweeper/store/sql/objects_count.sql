-- How many objects are still to be removed.
SELECT count(*) AS pending
FROM sweeper.object_purges o JOIN sweeper.runs r ON r.id = o.run_id
WHERE r.store = :store AND o.done_at IS NULL
