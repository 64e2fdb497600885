-- The columns, types and kinds of the relations of a schema.
SELECT c.relname AS relation,
       c.relkind::text AS kind,
       a.attname AS column,
       CASE WHEN b.oid = 'bpchar'::regtype THEN 'bpchar' ELSE format_type(b.oid, NULL) END AS type
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
JOIN pg_catalog.pg_type b ON b.oid = COALESCE(NULLIF(y.typbasetype, 0), y.oid)
WHERE n.nspname = :schema AND c.relname = ANY(CAST(:relations AS text[])) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY c.relname, a.attnum
