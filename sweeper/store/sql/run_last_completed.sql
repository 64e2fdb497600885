-- The latest as-of of a completed run, and what the last completed run saw of the histories. A slice of a backfill may have
-- completed while a run waited for its lease, and with a later as-of: that is no clock set back.
SELECT max(r.as_of) FILTER (WHERE r.kind <> 'backfill') AS as_of,
       (SELECT l.plan_changes FROM sweeper.runs l WHERE l.store = :store AND l.outcome = 'completed' ORDER BY l.id DESC LIMIT 1) AS plan_changes,
       (SELECT l.consent_events FROM sweeper.runs l WHERE l.store = :store AND l.outcome = 'completed' ORDER BY l.id DESC LIMIT 1) AS consent_events
FROM sweeper.runs r
WHERE r.store = :store AND r.outcome = 'completed'
