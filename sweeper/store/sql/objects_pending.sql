-- Objects still to be removed that this run has not tried yet, those tried least first, after one of them; where `ended_by` is
-- given, only those of runs that had ended by then.
SELECT o.id, o.uri, o.attempts FROM sweeper.object_purges o JOIN sweeper.runs r ON r.id = o.run_id
WHERE r.store = :store AND o.done_at IS NULL AND o.last_run_id IS DISTINCT FROM :run_id
  AND (o.attempts, o.id) > (:attempts, :after)
  AND (CAST(:ended_by AS timestamptz) IS NULL OR r.finished_at <= CAST(:ended_by AS timestamptz))
ORDER BY o.attempts, o.id LIMIT :limit
