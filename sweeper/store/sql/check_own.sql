-- The sweeper's own tables that exist, and whether the role may read each.
SELECT c.relname::text AS table,
       c.oid::bigint AS oid,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'sweeper' AND c.relkind IN ('r', 'p')
