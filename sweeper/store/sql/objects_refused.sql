-- Record that objects may not be removed; they stay pending.
UPDATE sweeper.object_purges o SET attempts = o.attempts + 1, last_run_id = :run_id, last_error = r.error
FROM unnest(CAST(:ids AS bigint[]), CAST(:errors AS text[])) AS r (id, error)
WHERE o.id = r.id AND o.done_at IS NULL
