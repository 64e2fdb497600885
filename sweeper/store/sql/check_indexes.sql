-- The usable indexes of some tables: key columns in order (NULL for an expression) and predicate.
SELECT i.indrelid::bigint AS oid,
       ARRAY(SELECT a.attname::text
             FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY u (num, pos)
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.num AND u.num > 0
             ORDER BY u.pos) AS columns,
       COALESCE(pg_get_expr(i.indpred, i.indrelid), '') AS predicate
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = c.relam
WHERE i.indrelid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[])) AND i.indisvalid AND m.amname IN ('btree', 'hash')
