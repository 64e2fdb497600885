-- Record that an object was not removed; it stays pending.
UPDATE sweeper.object_purges SET attempts = attempts + 1, last_run_id = :run_id, last_error = :error
WHERE id = :id AND done_at IS NULL
