-- name: objects_pending
-- Objects still to be removed that this run has not tried yet, least often tried first, after a given one; with `ended_by` only
-- those of runs that had ended by then.
SELECT o.id, o.uri, o.attempts FROM sweeper.object_purges o JOIN sweeper.runs r ON r.id = o.run_id
WHERE r.store = :store AND o.done_at IS NULL AND o.last_run_id IS DISTINCT FROM :run_id
  AND (o.attempts, o.id) > (:attempts, :after)
  AND (CAST(:ended_by AS timestamptz) IS NULL OR r.finished_at <= CAST(:ended_by AS timestamptz))
ORDER BY o.attempts, o.id LIMIT :limit

-- name: objects_claim
-- Claim pending objects, except those that another process has claimed.
SELECT o.id FROM sweeper.object_purges o WHERE o.id = ANY(CAST(:ids AS bigint[])) AND o.done_at IS NULL
FOR UPDATE OF o SKIP LOCKED

-- name: objects_named
-- Which of these spellings the attachments now write.
SELECT DISTINCT a.uri::text AS uri FROM attachments a WHERE a.uri = ANY(CAST(:spellings AS text[]))

-- name: objects_done
-- Record the outcomes of removals.
UPDATE sweeper.object_purges o
SET outcome = r.outcome, done_at = :now, attempts = o.attempts + 1, last_run_id = :run_id, last_error = NULL
FROM unnest(CAST(:ids AS bigint[]), CAST(:outcomes AS text[])) AS r (id, outcome)
WHERE o.id = r.id

-- name: objects_kept
-- Record why objects were not removed; they stay pending. An object that another process has claimed is left out.
UPDATE sweeper.object_purges o SET attempts = o.attempts + 1, last_run_id = :run_id, last_error = r.error
FROM unnest(CAST(:ids AS bigint[]), CAST(:errors AS text[])) AS r (id, error)
WHERE o.id = r.id
  AND o.id IN (SELECT p.id FROM sweeper.object_purges p WHERE p.id = ANY(CAST(:ids AS bigint[])) AND p.done_at IS NULL
               FOR UPDATE SKIP LOCKED)

-- name: objects_count
-- How many objects are still to be removed.
SELECT count(*) AS pending
FROM sweeper.object_purges o JOIN sweeper.runs r ON r.id = o.run_id
WHERE r.store = :store AND o.done_at IS NULL

-- name: objects_behind
-- How many objects are still to be removed, and how many of them no run will remove, was able to remove or has removed in time.
SELECT count(*) AS pending,
       count(*) FILTER (WHERE NOT CAST(:allowed AS boolean) OR o.attempts > 0 OR r.finished_at <= CAST(:before AS timestamptz)) AS behind
FROM sweeper.object_purges o JOIN sweeper.runs r ON r.id = o.run_id
WHERE r.store = :store AND o.done_at IS NULL

-- name: objects_non_canonical
-- URIs of attachments that are not canonical, so that no index can find the object they refer to.
SELECT a.uri::text AS uri FROM attachments a WHERE a.uri ~ '$pattern'

-- name: check_objects
-- Whether any attachment names an object.
SELECT EXISTS (SELECT 1 FROM attachments a WHERE a.uri IS NOT NULL)
