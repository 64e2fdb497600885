-- The tables that a purge touches with their partitions, and whether row-level security reaches the role there.
WITH RECURSIVE touched AS (
    SELECT unnest(CAST(CAST(:oids AS bigint[]) AS oid[])) AS oid
    UNION
    SELECT i.inhrelid FROM touched t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid
)
SELECT c.oid::bigint AS oid, format('%I.%I', n.nspname, c.relname) AS name, row_security_active(c.oid) AS secured
FROM touched t
JOIN pg_catalog.pg_class c ON c.oid = t.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY 2
