-- Ask a holder that gives way for the lease; no row where the holder does not.
UPDATE sweeper.lease SET wanted_at = clock_timestamp() WHERE store = :store AND yields RETURNING token
