-- Tables that are not known to the purge, with a column that is named like a child's key and has no foreign key.
SELECT format('%I.%I', n.nspname, c.relname) AS table,
       n.nspname || '.' || c.relname AS setting,
       a.attname::text AS column
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND (n.nspname = :schema OR n.oid IN (SELECT k.relnamespace FROM pg_catalog.pg_class k
                                        WHERE k.oid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[]))))
  AND c.oid <> ALL(CAST(CAST(:known AS bigint[]) AS oid[]))
  AND lower(replace(a.attname, '_', '')) = ANY(CAST(:names AS text[]))
  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_constraint k
                  WHERE k.conrelid = c.oid AND k.contype = 'f' AND a.attnum = ANY(k.conkey))
ORDER BY 1, 3
