-- The latest as-of of a completed run, and what the last completed run saw of the histories.
SELECT max(r.as_of) AS as_of,
       (SELECT l.plan_changes FROM sweeper.runs l WHERE l.store = :store AND l.outcome = 'completed' ORDER BY l.id DESC LIMIT 1) AS plan_changes,
       (SELECT l.consent_events FROM sweeper.runs l WHERE l.store = :store AND l.outcome = 'completed' ORDER BY l.id DESC LIMIT 1) AS consent_events
FROM sweeper.runs r
WHERE r.store = :store AND r.outcome = 'completed'
