-- Conversations purged since an instant without an approval.
SELECT count(*) FROM sweeper.tombstones t
WHERE t.record = 'conversation' AND NOT t.approved AND t.purged_at > :since AND t.purged_at <= :until
