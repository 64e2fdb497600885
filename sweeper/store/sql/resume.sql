-- Lift every pause.
UPDATE sweeper.pauses SET resumed_at = :now WHERE resumed_at IS NULL RETURNING id, reason, paused_at, resumed_at
