-- Share the fence that every placement of a legal hold takes alone: holds read after this are all the holds there are.
SELECT pg_catalog.pg_advisory_xact_lock_shared(5857584, 1)
