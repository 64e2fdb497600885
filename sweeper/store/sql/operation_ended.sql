-- How the newest plain run that has ended did end, and when the newest did that did all that was asked of it.
SELECT (SELECT r.outcome FROM sweeper.runs r WHERE r.store = :store AND r.kind = 'run' AND r.outcome IS NOT NULL
        ORDER BY r.id DESC LIMIT 1) AS outcome,
       (SELECT r.finished_at FROM sweeper.runs r
        WHERE r.store = :store AND r.kind = 'run'
          AND (r.outcome = 'completed' OR r.outcome = 'stopped' AND r.result ->> 'stop_reason' = ANY(:ordered))
          AND COALESCE(r.result ->> 'stalled', 'false') = 'false'
        ORDER BY r.id DESC LIMIT 1) AS success
