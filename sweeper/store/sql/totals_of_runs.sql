-- What all runs of a store that ended have counted: what, under which label, how much.
WITH ended AS MATERIALIZED (
    SELECT r.kind, r.outcome, r.result FROM sweeper.runs r WHERE r.store = :store AND r.outcome IS NOT NULL
)
SELECT 'runs' AS what, e.kind || ' ' || e.outcome AS label, CAST(count(*) AS double precision) AS total
FROM ended e GROUP BY e.kind, e.outcome
UNION ALL
SELECT 'refusals', e.result ->> 'guard', count(*) FROM ended e WHERE e.result ->> 'guard' IS NOT NULL GROUP BY e.result ->> 'guard'
UNION ALL
SELECT 'spared', k.key, sum(CAST(k.value AS bigint))
FROM ended e CROSS JOIN jsonb_each_text(e.result -> 'spared_by_reason') AS k GROUP BY k.key
UNION ALL
SELECT 'failed', '', COALESCE(sum(CAST(e.result ->> 'failed' AS bigint)), 0) FROM ended e
UNION ALL
SELECT 'batch seconds', '', COALESCE(sum(CAST(e.result -> 'batches' ->> 'seconds' AS double precision)), 0) FROM ended e
UNION ALL
SELECT 'batch buckets', k.key, sum(CAST(k.value AS bigint))
FROM ended e CROSS JOIN jsonb_each_text(e.result -> 'batches' -> 'buckets') AS k GROUP BY k.key
UNION ALL
SELECT 'pauses', k.key, sum(CAST(k.value ->> 'count' AS bigint))
FROM ended e CROSS JOIN jsonb_each(e.result -> 'pauses') AS k GROUP BY k.key
UNION ALL
SELECT 'pause seconds', k.key, sum(CAST(k.value ->> 'seconds' AS double precision))
FROM ended e CROSS JOIN jsonb_each(e.result -> 'pauses') AS k GROUP BY k.key
