-- The tombstone of a conversation.
SELECT t.run_id, t.rule, t.due_at, t.as_of, t.purged_at FROM sweeper.tombstones t
WHERE t.record_id = :id AND t.record = 'conversation' ORDER BY t.id DESC LIMIT 1
