-- Objects still to be removed that this run has not tried yet, those tried least first.
SELECT o.id, o.uri FROM sweeper.object_purges o JOIN sweeper.runs r ON r.id = o.run_id
WHERE r.store = :store AND o.done_at IS NULL AND o.last_run_id IS DISTINCT FROM :run_id
ORDER BY o.attempts, o.id LIMIT :limit
