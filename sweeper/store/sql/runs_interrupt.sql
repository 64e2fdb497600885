-- Mark the runs that ended without saying so: they hold an older token than the one now taken.
UPDATE sweeper.runs SET finished_at = :now, outcome = 'interrupted'
WHERE store = :store AND outcome IS NULL AND token < :token
RETURNING id
