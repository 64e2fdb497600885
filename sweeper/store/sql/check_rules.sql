-- The rewrite rules of some tables that act on DELETE.
SELECT format('%I.%I', n.nspname, c.relname) AS table, quote_ident(r.rulename) AS rule, r.is_instead
FROM pg_catalog.pg_rewrite r
JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE r.ev_class = ANY(CAST(CAST(:oids AS bigint[]) AS oid[])) AND r.ev_type = '4' AND r.ev_enabled IN ('O', 'A')
ORDER BY 1, 2
