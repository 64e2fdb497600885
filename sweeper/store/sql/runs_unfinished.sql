-- The runs since the last completed one, this one included: what they left undone is done now.
SELECT r.id FROM sweeper.runs r
WHERE r.store = :store
  AND r.id > COALESCE((SELECT max(c.id) FROM sweeper.runs c WHERE c.store = :store AND c.outcome = 'completed'), 0)
ORDER BY r.id
