-- name: catalogue_columns
-- The columns of all tables of the database but the system's and the sweeper's own, with their types; the key of a table by rank.
SELECT n.nspname::text AS schema,
       c.relname::text AS table,
       a.attname::text AS column,
       format_type(COALESCE(NULLIF(y.typbasetype, 0), y.oid), NULL) AS type,
       array_position(k.conkey, a.attnum) AS key_rank
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
LEFT JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'sweeper')
  AND n.nspname NOT LIKE 'pg\_%'
ORDER BY n.nspname, c.relname, a.attnum

-- name: catalogue_keys
-- The foreign keys of one column each, between these tables.
SELECT n.nspname::text AS schema,
       c.relname::text AS table,
       a.attname::text AS column,
       pn.nspname::text AS parent_schema,
       pc.relname::text AS parent
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class pc ON pc.oid = k.confrelid
JOIN pg_catalog.pg_namespace pn ON pn.oid = pc.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
WHERE k.contype = 'f' AND cardinality(k.conkey) = 1 AND k.conparentid = 0
ORDER BY 1, 2, 3
