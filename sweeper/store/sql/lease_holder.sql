-- What kind of run holds a lease that has not ended.
SELECT r.kind FROM sweeper.lease l JOIN sweeper.runs r ON r.id = l.run_id
WHERE l.store = :store AND l.expires_at > clock_timestamp()
