-- The tombstones of a conversation in a store, the newest first.
SELECT t.id FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.record_id = :id AND t.record = 'conversation' ORDER BY t.id DESC LIMIT 100
