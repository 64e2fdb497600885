-- What was purged in a time, by kind of record and rule, as the tombstones say.
SELECT t.record, t.rule, count(*) AS purged
FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.purged_at > :since AND t.purged_at <= :until
GROUP BY t.record, t.rule
