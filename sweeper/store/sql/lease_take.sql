-- Take the lease: a new token fences off whoever had it before.
UPDATE sweeper.lease
SET run_id = NULL, token = token + 1, expires_at = clock_timestamp() + make_interval(secs => :seconds), yields = :yields,
    wanted_at = CASE WHEN :yields THEN wanted_at ELSE '-infinity' END
WHERE store = :store
RETURNING token
