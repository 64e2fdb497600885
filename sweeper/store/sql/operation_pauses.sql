-- The pauses that are not resumed, the oldest first.
SELECT id, reason, paused_at FROM sweeper.pauses WHERE resumed_at IS NULL ORDER BY id
