-- The columns of a table that an INSERT can fill, with all that says which value each may take.
SELECT a.attname::text AS name,
       format_type(a.atttypid, a.atttypmod) AS type,
       b.typname::text AS base,
       b.typcategory::text AS category,
       a.attnotnull OR y.typnotnull AS required,
       a.atthasdef AS defaulted,
       a.attidentity <> '' AS identity,
       CASE WHEN b.typname IN ('varchar', 'bpchar') THEN NULLIF(GREATEST(a.atttypmod, y.typtypmod) - 4, -5) END AS length,
       (SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = b.oid ORDER BY e.enumsortorder LIMIT 1) AS label,
       EXISTS (SELECT FROM pg_catalog.pg_index i
               WHERE i.indrelid = a.attrelid AND i.indisunique AND a.attnum = ANY(i.indkey)) AS in_unique,
       EXISTS (SELECT FROM pg_catalog.pg_index i
               WHERE i.indrelid = a.attrelid AND i.indisunique AND a.attnum = i.indkey[0] AND i.indnkeyatts = 1) AS alone_unique,
       EXISTS (SELECT FROM pg_catalog.pg_constraint k
               WHERE k.contype = 'c' AND (k.conrelid = a.attrelid AND a.attnum = ANY(k.conkey) OR k.contypid = y.oid)) AS checked,
       EXISTS (SELECT FROM pg_catalog.pg_partitioned_table t
               WHERE t.partrelid = a.attrelid AND a.attnum = ANY(t.partattrs)) AS partitioning,
       k.confrelid::bigint AS reference,
       k.confrelid::regclass::text AS parent,
       quote_ident(k.attname) AS parent_column
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
JOIN pg_catalog.pg_type b ON b.oid = COALESCE(NULLIF(y.typbasetype, 0), y.oid)
LEFT JOIN LATERAL (
    SELECT k.confrelid, p.attname
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = k.confkey[array_position(k.conkey, a.attnum)]
    WHERE k.contype = 'f' AND k.conrelid = a.attrelid AND a.attnum = ANY(k.conkey) AND k.conparentid = 0
    ORDER BY k.confrelid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[])) DESC, k.oid
    LIMIT 1
) k ON true
WHERE a.attrelid = CAST(:oid AS oid) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum
