-- The newest runs of a store, and the newest of each kind where others hide it; what those without a full result have
-- purged, their tombstones say.
SELECT r.id, r.kind, r.as_of, r.started_at, r.finished_at, r.outcome,
       r.result ->> 'stop_reason' AS stop_reason,
       r.result ->> 'guard' AS guard,
       COALESCE(r.result ->> 'stalled', 'false') = 'true' AS stalled,
       COALESCE(r.result ->> 'text', r.result ->> 'error') AS said,
       COALESCE(CAST(r.result ->> 'failed' AS bigint), 0) AS failed,
       COALESCE(CAST(r.result ->> 'purged' AS bigint),
                (SELECT count(*) FROM sweeper.tombstones t WHERE t.run_id = r.id AND t.record = 'conversation')) AS purged
FROM sweeper.runs r
WHERE r.id IN (SELECT n.id FROM sweeper.runs n WHERE n.store = :store ORDER BY n.id DESC LIMIT :limit)
   OR r.id IN (SELECT max(n.id) FROM sweeper.runs n WHERE n.store = :store AND n.outcome IS NOT NULL GROUP BY n.kind)
ORDER BY r.id DESC
