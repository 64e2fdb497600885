-- A backfill is alive, and has come so far.
UPDATE sweeper.backfills SET seen_at = :now, done_until = GREATEST(done_until, :done_until) WHERE id = :id AND finished_at IS NULL
