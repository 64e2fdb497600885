-- Renew the lease under its token; no row means that another run has taken it over.
UPDATE sweeper.lease
SET run_id = COALESCE(:run_id, run_id), expires_at = clock_timestamp() + make_interval(secs => :seconds)
WHERE store = :store AND token = :token
RETURNING token
