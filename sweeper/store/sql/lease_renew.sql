-- Renew the lease under its token; no row means that another run has taken it over. Says what its holder must know of others.
UPDATE sweeper.lease
SET run_id = COALESCE(:run_id, run_id), expires_at = clock_timestamp() + make_interval(secs => :seconds)
WHERE store = :store AND token = :token
RETURNING token,
          wanted_at > clock_timestamp() - make_interval(secs => :fresh) AS wanted,
          (SELECT p.reason FROM sweeper.pauses p WHERE p.resumed_at IS NULL ORDER BY p.id LIMIT 1) AS paused
