-- What the newest runs that purged anything did in which time; one that was interrupted does not say when it ended.
SELECT COALESCE(sum(w.purged), 0) AS purged, COALESCE(sum(w.seconds), 0) AS seconds
FROM (
    SELECT COALESCE(CAST(r.result ->> 'purged' AS bigint),
                    (SELECT count(*) FROM sweeper.tombstones t WHERE t.run_id = r.id AND t.record = 'conversation')) AS purged,
           extract(epoch FROM COALESCE(r.finished_at, CAST(:now AS timestamptz)) - r.started_at) AS seconds
    FROM sweeper.runs r
    WHERE r.store = :store AND r.outcome IS DISTINCT FROM 'interrupted'
      AND (r.outcome IS NOT NULL OR EXISTS (SELECT FROM sweeper.lease l WHERE l.run_id = r.id AND l.expires_at > clock_timestamp()))
    ORDER BY r.id DESC
    LIMIT :runs
) AS w
WHERE w.purged > 0 AND w.seconds > 0
