-- The lease, locked, unless a batch of its holder has it locked right now.
SELECT run_id, token, expires_at, yields, expires_at <= clock_timestamp() AS expired,
       wanted_at > clock_timestamp() - make_interval(secs => :fresh) AS wanted
FROM sweeper.lease WHERE store = :store
FOR UPDATE SKIP LOCKED
