-- Record why objects were not removed; they stay pending. One that another process has claimed is left to it.
UPDATE sweeper.object_purges o SET attempts = o.attempts + 1, last_run_id = :run_id, last_error = r.error
FROM unnest(CAST(:ids AS bigint[]), CAST(:errors AS text[])) AS r (id, error)
WHERE o.id = r.id
  AND o.id IN (SELECT p.id FROM sweeper.object_purges p WHERE p.id = ANY(CAST(:ids AS bigint[])) AND p.done_at IS NULL
               FOR UPDATE SKIP LOCKED)
