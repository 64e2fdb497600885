-- What the runs of a backfill have purged so far.
SELECT COALESCE(sum(COALESCE(CAST(r.result ->> 'purged' AS bigint),
                             (SELECT count(*) FROM sweeper.tombstones t WHERE t.run_id = r.id AND t.record = 'conversation'))), 0) AS purged
FROM sweeper.runs r
WHERE r.backfill_id = :backfill
