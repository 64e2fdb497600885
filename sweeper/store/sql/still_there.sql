-- Of some ids, those whose physical rows exist, locked by others or not.
SELECT t.$key::text AS id FROM $table t WHERE t.$key = ANY(CAST(:ids AS $type[]))
