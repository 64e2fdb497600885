-- The name of a table and the type of its key column.
SELECT format('%I.%I', n.nspname, c.relname) AS name, CASE WHEN b.oid = 'bpchar'::regtype THEN 'bpchar' ELSE format_type(b.oid, NULL) END AS type
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = :key AND NOT a.attisdropped
JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
JOIN pg_catalog.pg_type b ON b.oid = COALESCE(NULLIF(y.typbasetype, 0), y.oid)
WHERE c.oid = CAST(:oid AS oid)
