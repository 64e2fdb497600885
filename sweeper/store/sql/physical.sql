-- The physical table of a name, its kind and the type of its key column.
SELECT format('%I.%I', n.nspname, c.relname) AS name,
       c.oid::bigint AS oid,
       c.relkind::text AS kind,
       CASE WHEN b.oid = 'bpchar'::regtype THEN 'bpchar' ELSE format_type(b.oid, NULL) END AS type
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = :key AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type b ON b.oid = COALESCE(NULLIF(y.typbasetype, 0), y.oid)
WHERE c.oid = to_regclass(:table)
