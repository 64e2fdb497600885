-- The tombstone of a conversation.
SELECT t.run_id, t.rule, t.due_at, t.as_of, t.purged_at FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.record_id = :id AND t.record = 'conversation' ORDER BY t.id DESC LIMIT 1
