-- The contract relations that exist.
SELECT c.relname::text AS relation, c.oid::bigint AS oid, c.relkind::text AS kind, format('%I.%I', n.nspname, c.relname) AS name
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relname = ANY(CAST(:relations AS text[])) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY c.relname
