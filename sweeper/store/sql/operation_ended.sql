-- The newest plain run that has ended, and of those the newest that completed.
SELECT (SELECT r.outcome FROM sweeper.runs r WHERE r.store = :store AND r.kind = 'run' AND r.outcome IS NOT NULL
        ORDER BY r.id DESC LIMIT 1) AS outcome,
       (SELECT r.finished_at FROM sweeper.runs r WHERE r.store = :store AND r.kind = 'run' AND r.outcome = 'completed'
        ORDER BY r.id DESC LIMIT 1) AS success
