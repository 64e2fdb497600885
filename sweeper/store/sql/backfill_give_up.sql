-- Nobody goes on with a backfill; how far it had come stays.
UPDATE sweeper.backfills SET finished_at = :now WHERE id = :id AND finished_at IS NULL
