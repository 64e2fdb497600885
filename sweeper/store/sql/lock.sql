-- Lock the physical rows of a batch; those that others hold locked are left out.
SELECT t.$key::text AS id FROM $table t WHERE t.$key = ANY(CAST(:ids AS $type[])) ORDER BY t.$key FOR UPDATE SKIP LOCKED
