-- name: backfill_begin
-- Record a backfill plan; a second attempt under the same approval changes nothing.
INSERT INTO sweeper.backfills (store, since, until, slices, policy_digest, approval, expected, done_until, begun_at, seen_at)
VALUES (:store, :since, :until, :by, :policy_digest, :approval, :expected, :since, :now, :now)
ON CONFLICT (approval) DO NOTHING

-- name: backfill_seen
-- Record that a backfill is alive and how far it has come.
UPDATE sweeper.backfills SET seen_at = :now, stopped_at = NULL, done_until = GREATEST(done_until, :done_until)
WHERE id = :id AND finished_at IS NULL

-- name: backfill_stopped
-- Record that the process of a backfill has ended before its plan was finished.
UPDATE sweeper.backfills SET stopped_at = :now WHERE id = :id AND finished_at IS NULL

-- name: backfill_finish
-- Record that a backfill has swept every slice.
UPDATE sweeper.backfills SET finished_at = :now, done_until = until WHERE id = :id AND finished_at IS NULL

-- name: backfill_give_up
-- Record that nobody continues a backfill; how far it had come stays.
UPDATE sweeper.backfills SET finished_at = :now WHERE id = :id AND finished_at IS NULL

-- name: backfills
-- Backfill plans that meet a condition, oldest first.
SELECT r.id, r.since, r.until, r.slices AS by, r.policy_digest, r.approval, r.expected, r.done_until, r.begun_at, r.seen_at,
       r.stopped_at, r.finished_at
FROM sweeper.backfills r
WHERE $condition
ORDER BY r.id
