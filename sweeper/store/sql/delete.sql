-- Delete the records of a batch; what was deleted is what this returns.
DELETE FROM $table t WHERE t.$key = ANY(CAST(:ids AS $type[])) RETURNING t.$key::text AS id
