-- A backfill has swept every slice.
UPDATE sweeper.backfills SET finished_at = :now, done_until = until WHERE id = :id AND finished_at IS NULL
