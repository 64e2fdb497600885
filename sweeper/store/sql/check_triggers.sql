-- The row triggers of some tables that run before a DELETE and so may keep rows back.
SELECT format('%I.%I', n.nspname, c.relname) AS table, quote_ident(t.tgname) AS trigger
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgrelid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[]))
  AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgparentid = 0
  AND (t.tgtype & 11) = 11  -- row (1), before (2), delete (8)
ORDER BY 1, 2
