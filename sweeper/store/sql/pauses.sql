-- The pauses that are not resumed.
SELECT p.id, p.reason, p.paused_at FROM sweeper.pauses p WHERE p.resumed_at IS NULL ORDER BY p.id
