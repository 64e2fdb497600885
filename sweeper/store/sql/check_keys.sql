-- The foreign keys that point to the tables of a purge.
SELECT quote_ident(k.conname) AS name,
       k.conrelid::bigint AS oid,
       k.confrelid::bigint AS parent_oid,
       format('%I.%I', n.nspname, c.relname) AS table,
       format('%I.%I', pn.nspname, p.relname) AS parent,
       (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY u.pos) FROM unnest(k.conkey) WITH ORDINALITY u (num, pos)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num) AS columns,
       (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY u.pos) FROM unnest(k.confkey) WITH ORDINALITY u (num, pos)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num) AS parent_columns,
       k.confdeltype::text AS action,
       k.convalidated AS validated
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class p ON p.oid = k.confrelid
JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[]))
ORDER BY 4, 1
