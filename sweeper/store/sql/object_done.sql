-- Record what became of an object; returns whether an attachment names it now.
UPDATE sweeper.object_purges
SET outcome = :outcome, done_at = :now, attempts = attempts + 1, last_run_id = :run_id, last_error = NULL
WHERE id = :id
RETURNING EXISTS (SELECT 1 FROM attachments a WHERE a.uri = ANY(CAST(:spellings AS text[]))) AS is_named
