-- When the latest sweep began that was a whole one, or was ended by its own budget: what it looked at was due by then.
SELECT max(least(r.started_at, r.as_of)) AS at
FROM sweeper.runs r
WHERE r.store = :store AND r.kind = 'run' AND (r.outcome = 'completed' OR r.result ->> 'stop_reason' IN ('max_runtime', 'max_purge'))
