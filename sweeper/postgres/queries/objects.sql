-- name: objects_pending
-- Objects still to be removed that this run has not tried yet, least often tried first, after a given one; with `ended_by` only
-- those of runs that had ended by then.
SELECT o.id, o.uri, o.attempts FROM sweeper.object_purges o JOIN sweeper.runs r ON r.id = o.run_id
WHERE r.store = :store AND o.done_at IS NULL AND o.last_run_id IS DISTINCT FROM :run_id
  AND (o.attempts, o.id) > (:attempts, :after)
  AND (CAST(:ended_by AS timestamptz) IS NULL OR r.finished_at <= CAST(:ended_by AS timestamptz))
ORDER BY o.attempts, o.id LIMIT :limit

-- name: object_claim
-- Claim a pending object, unless another process has claimed it, and return how the attachments that name it now write its URI.
SELECT ARRAY(SELECT DISTINCT a.uri::text FROM attachments a WHERE a.uri = ANY(CAST(:spellings AS text[]))) AS named_as
FROM sweeper.object_purges o WHERE o.id = :id AND o.done_at IS NULL
FOR UPDATE OF o SKIP LOCKED

-- name: object_done
-- Record the outcome of an object's removal and return whether an attachment names it now.
UPDATE sweeper.object_purges
SET outcome = :outcome, done_at = :now, attempts = attempts + 1, last_run_id = :run_id, last_error = NULL
WHERE id = :id
RETURNING EXISTS (SELECT 1 FROM attachments a WHERE a.uri = ANY(CAST(:spellings AS text[]))) AS is_named

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
