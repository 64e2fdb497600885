-- Lock the physical rows of a batch, waiting for those that others hold (up to lock_timeout).
SELECT t.$key::text AS id FROM $table t WHERE t.$key = ANY(CAST(:ids AS $type[])) ORDER BY t.$key FOR UPDATE
