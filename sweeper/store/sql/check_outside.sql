-- The trigger functions of some tables that look as if they acted outside of the transaction, where nothing is rolled back.
WITH RECURSIVE touched AS (
    SELECT unnest(CAST(CAST(:oids AS bigint[]) AS oid[])) AS oid
    UNION
    SELECT i.inhrelid FROM touched t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid
)
SELECT DISTINCT p.oid::regprocedure::text AS function
FROM touched t
JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal AND g.tgenabled IN ('O', 'A')
JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE NOT l.lanpltrusted AND l.lanname NOT IN ('c', 'internal')
   OR l.lanname NOT IN ('c', 'internal') AND p.prosrc ~* 'dblink|\mhttp|\mnet\.http|\mprogram\M|lo_export|pg_background|autonomous'
ORDER BY 1
