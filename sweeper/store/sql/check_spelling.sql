-- The function by which ids of holds are compared, where the role may not execute it.
SELECT p.oid::regprocedure::text AS function
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'sweeper' AND p.proname = 'spelling' AND NOT has_function_privilege(p.oid, 'EXECUTE')
