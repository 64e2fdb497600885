-- What the runs under an approval have purged, by rule.
SELECT t.rule, count(*) AS purged
FROM sweeper.runs r JOIN sweeper.tombstones t ON t.run_id = r.id
WHERE r.approval = :approval AND t.record = 'conversation'
GROUP BY t.rule
