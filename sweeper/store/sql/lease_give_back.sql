-- Give the lease back, so that the next run need not wait for its end.
UPDATE sweeper.lease SET expires_at = '-infinity' WHERE store = :store AND token = :token
