-- The lease, locked, unless a batch of its holder has it locked right now.
SELECT run_id, token, expires_at, expires_at <= clock_timestamp() AS expired
FROM sweeper.lease WHERE store = :store
FOR UPDATE SKIP LOCKED
