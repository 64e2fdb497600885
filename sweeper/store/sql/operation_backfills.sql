-- The backfills of a store that are not finished, with what they have purged so far.
SELECT b.id, b.since, b.until, b.slices, b.done_until, b.expected, b.begun_at, b.seen_at,
       (SELECT COALESCE(sum(COALESCE(CAST(r.result ->> 'purged' AS bigint),
                                     (SELECT count(*) FROM sweeper.tombstones t WHERE t.run_id = r.id AND t.record = 'conversation'))), 0)
        FROM sweeper.runs r WHERE r.backfill_id = b.id) AS purged
FROM sweeper.backfills b
WHERE b.store = :store AND b.finished_at IS NULL
ORDER BY b.id
