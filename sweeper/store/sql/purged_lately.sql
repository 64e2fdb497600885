-- Conversations purged since an instant without an approval.
SELECT count(*) FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.record = 'conversation' AND NOT t.approved AND t.purged_at > :since AND t.purged_at <= :until
