-- The schemas of some tables on which the role lacks USAGE.
SELECT DISTINCT quote_ident(n.nspname) AS schema
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[])) AND NOT has_schema_privilege(n.oid, 'USAGE')
ORDER BY 1
