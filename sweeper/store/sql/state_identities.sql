-- Which databases the runs say they were in, each with the first event that says so; the oldest events say nothing of it.
SELECT e.details ->> 'identity' AS identity, min(e.id) AS event_id
FROM sweeper.events e
WHERE e.kind = 'run_opened' AND e.details ? 'identity'
GROUP BY e.details ->> 'identity'
ORDER BY min(e.id)
