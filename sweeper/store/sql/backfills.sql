-- Plans of backfills.
SELECT r.id, r.since, r.until, r.slices AS by, r.policy_digest, r.approval, r.expected, r.done_until, r.begun_at, r.seen_at,
       r.finished_at
FROM sweeper.backfills r
WHERE $condition
ORDER BY r.id
