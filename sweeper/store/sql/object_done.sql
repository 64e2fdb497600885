-- Record what became of an object.
UPDATE sweeper.object_purges
SET outcome = :outcome, done_at = :now, attempts = attempts + 1, last_run_id = :run_id, last_error = NULL
WHERE id = :id
