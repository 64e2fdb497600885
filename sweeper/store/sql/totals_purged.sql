-- All that was ever purged, by kind of record and rule: as results say, and where a run has none, as its tombstones say.
SELECT p.record, p.rule, CAST(sum(p.purged) AS bigint) AS purged
FROM (
    SELECT 'conversation' AS record, k.key AS rule, CAST(k.value AS bigint) AS purged
    FROM sweeper.runs r CROSS JOIN jsonb_each_text(r.result -> 'by_rule') AS k
    WHERE r.store = :store
    UNION ALL
    SELECT 'feedback', k.key, CAST(k.value AS bigint)
    FROM sweeper.runs r CROSS JOIN jsonb_each_text(r.result -> 'feedback_by_rule') AS k
    WHERE r.store = :store AND r.result -> 'by_rule' IS NOT NULL
    UNION ALL
    SELECT t.record, t.rule, count(*)
    FROM sweeper.runs r JOIN sweeper.tombstones t ON t.run_id = r.id
    WHERE r.store = :store AND r.result -> 'by_rule' IS NULL
    GROUP BY t.record, t.rule
) AS p
GROUP BY p.record, p.rule
