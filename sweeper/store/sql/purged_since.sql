-- The conversations of a store purged after a tombstone, with when.
SELECT t.record_id, max(t.purged_at) AS purged_at
FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.record = 'conversation' AND t.id > :last
GROUP BY t.record_id
