-- A table by its name, its kind and the type of its key column; unlike to_regclass this needs no privilege on the schema.
SELECT format('%I.%I', n.nspname, c.relname) AS name,
       c.oid::bigint AS oid,
       c.relkind::text AS kind,
       CASE a.atttypid WHEN 'bpchar'::regtype THEN 'bpchar' ELSE format_type(a.atttypid, NULL) END AS type
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = :key AND NOT a.attisdropped
WHERE n.nspname = :schema AND c.relname = :table AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
