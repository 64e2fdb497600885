-- Take the fence alone: every batch that has begun has ended, and no other begins until this transaction does.
SELECT pg_catalog.pg_advisory_xact_lock(5857584, 1)
