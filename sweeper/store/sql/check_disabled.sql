-- The triggers by which foreign keys among some tables do their work, where they are switched off.
SELECT format('%I.%I', n.nspname, c.relname) AS table,
       quote_ident(k.conname) AS key,
       quote_ident(t.tgname) AS trigger
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint AND k.contype = 'f'
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.confrelid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[])) AND t.tgisinternal AND t.tgenabled NOT IN ('O', 'A')
ORDER BY 1, 2, 3
