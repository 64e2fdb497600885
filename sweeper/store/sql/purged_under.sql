-- What the runs under an approval have purged, by rule: closed runs have it in their result, of the others the tombstones tell.
SELECT p.rule, CAST(sum(p.purged) AS bigint) AS purged
FROM (
    SELECT b.key AS rule, CAST(b.value AS bigint) AS purged
    FROM sweeper.runs r CROSS JOIN LATERAL jsonb_each_text(r.result -> 'by_rule') AS b
    WHERE r.approval = :approval AND jsonb_typeof(r.result -> 'by_rule') = 'object'
    UNION ALL
    SELECT t.rule, count(*)
    FROM sweeper.runs r JOIN sweeper.tombstones t ON t.run_id = r.id
    WHERE r.approval = :approval AND jsonb_typeof(r.result -> 'by_rule') IS DISTINCT FROM 'object' AND t.record = 'conversation'
    GROUP BY t.rule
) AS p
GROUP BY p.rule
