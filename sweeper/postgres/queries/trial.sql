-- name: trial_begin
-- Give the transaction an id, so that its writes can be found, and return whether the server counts writes to tables.
SELECT pg_current_xact_id()::xid::text AS began, current_setting('track_counts')::boolean AS counted

-- name: trial_written
-- The tables, except the sweeper's own, in which the session has written rows not yet in the statistics. `tied`: the table has
-- a foreign key to a purged table, which a delete may have unset.
SELECT c.oid::bigint AS oid,
       format('%I.%I', n.nspname, c.relname) AS table,
       pg_stat_get_xact_tuples_inserted(c.oid) AS inserted,
       pg_stat_get_xact_tuples_updated(c.oid) AS updated,
       EXISTS (SELECT FROM pg_catalog.pg_constraint k
               WHERE k.contype = 'f' AND k.conrelid = c.oid
                 AND k.confrelid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[]))) AS tied,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname NOT IN ('sweeper', 'pg_catalog', 'information_schema')
  AND pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid) > 0
ORDER BY 2

-- name: trial_sample
-- A few records by key: the first, the last, and of the first thousand rows some that share their key with others.
(SELECT $key::text AS id FROM $table t WHERE $key IS NOT NULL ORDER BY $key LIMIT :some)
UNION
(SELECT $key::text FROM $table t WHERE $key IS NOT NULL ORDER BY $key DESC LIMIT :some)
UNION
(SELECT k.key::text
 FROM (SELECT $key AS key FROM $table t WHERE $key IS NOT NULL ORDER BY $key LIMIT 1000) k
 GROUP BY k.key HAVING count(*) > 1 ORDER BY k.key LIMIT :some)

-- name: trial_owners
-- Some records that have rows in a child table: the owners of its first rows.
SELECT DISTINCT t.owner AS id
FROM (SELECT $key::text AS owner FROM $table t WHERE $key IS NOT NULL LIMIT 50) t
LIMIT :some

-- name: canary_may_write
-- Whether the role may read a table and insert into it.
SELECT has_table_privilege(CAST(:oid AS oid), 'INSERT') AND has_table_privilege(CAST(:oid AS oid), 'SELECT')

-- name: canary_columns
-- The columns of a table that an INSERT can fill, with everything that limits their values.
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

-- name: canary_row
-- Insert one marked copy of an existing row; return its location, its marks, and the columns that children refer to.
INSERT INTO $table AS canary_row ($columns)
SELECT $values FROM (VALUES (1)) one LEFT JOIN LATERAL (SELECT * FROM $table LIMIT 1) r ON true
RETURNING canary_row.tableoid::bigint AS canary_oid,
          ARRAY(SELECT m.mark FROM unnest(CAST(:marks AS text[])) AS m (mark)
                WHERE position(m.mark IN lower(canary_row::text)) > 0
                   OR position(encode(convert_to(m.mark, 'UTF8'), 'hex') IN canary_row::text) > 0) AS canary_marks
          $returned

-- name: trial_marks
-- The marks found in rows of a table written by this transaction or by one since it began; also as bytes in hexadecimal.
SELECT m.mark, count(*) AS rows
FROM ONLY $table canary_row
JOIN unnest(CAST(:marks AS text[])) AS m (mark)
  ON position(m.mark IN lower(canary_row::text)) > 0
  OR position(encode(convert_to(m.mark, 'UTF8'), 'hex') IN canary_row::text) > 0
WHERE age(canary_row.xmin) <= age(CAST(CAST(:began AS text) AS xid))
GROUP BY m.mark
