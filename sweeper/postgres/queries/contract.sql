-- name: columns
-- The columns, types and kinds of the relations of a schema.
SELECT c.relname AS relation,
       c.relkind::text AS kind,
       a.attname AS column,
       CASE WHEN b.oid = 'bpchar'::regtype THEN 'bpchar' ELSE format_type(b.oid, NULL) END AS type
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
JOIN pg_catalog.pg_type b ON b.oid = COALESCE(NULLIF(y.typbasetype, 0), y.oid)
WHERE n.nspname = :schema AND c.relname = ANY(CAST(:relations AS text[])) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY c.relname, a.attnum

-- name: unique_by_id
-- The tables of the contract relations in which a unique index guarantees that an id occurs once.
SELECT c.relname AS relation
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'id' AND NOT a.attisdropped
WHERE n.nspname = :schema AND c.relname = ANY(CAST(:relations AS text[])) AND c.relkind IN ('r', 'p')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid AND c.relkind = 'r')
  AND EXISTS (
      SELECT FROM pg_catalog.pg_index i
      WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
  )

-- name: base_tables
-- The tables that the contract relations read: a table itself, or all that a view reads, directly or through other views.
WITH RECURSIVE bases AS (
    SELECT c.relname AS relation, c.oid, c.relkind
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = ANY(CAST(:relations AS text[])) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION
    SELECT b.relation, c.oid, c.relkind
    FROM bases b
    JOIN pg_catalog.pg_rewrite r ON r.ev_class = b.oid
    JOIN pg_catalog.pg_depend d
      ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
    JOIN pg_catalog.pg_class c ON c.oid = d.refobjid AND c.oid <> b.oid
    WHERE b.relkind IN ('v', 'm')
)
SELECT b.relation, b.oid::bigint AS oid, b.oid::regclass::text AS name FROM bases b WHERE b.relkind IN ('r', 'p') ORDER BY b.relation, b.oid

-- name: redacted_columns
-- The columns of a table that may be redacted: the type, and what forbids to empty one.
SELECT format('%I.%I', n.nspname, c.relname) AS name,
       c.oid::bigint AS oid,
       a.attname AS column,
       format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull OR y.typnotnull AS required,
       a.attgenerated <> '' OR a.attidentity <> '' AS generated,
       EXISTS (
           SELECT FROM pg_catalog.pg_constraint k
           WHERE k.contype IN ('p', 'u', 'f')
             AND (k.conrelid = c.oid AND a.attnum = ANY(k.conkey) OR k.confrelid = c.oid AND a.attnum = ANY(k.confkey))
       ) OR EXISTS (
           SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND a.attnum = ANY(i.indkey)
       ) AS keyed
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
WHERE c.oid = to_regclass(:table) AND c.relkind IN ('r', 'p')

-- name: cast_value
-- Whether the server takes a text for a value of a type.
SELECT $value AS value

-- name: table_of
-- The name of a table and the type of its key column.
SELECT format('%I.%I', n.nspname, c.relname) AS name, CASE WHEN b.oid = 'bpchar'::regtype THEN 'bpchar' ELSE format_type(b.oid, NULL) END AS type
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = :key AND NOT a.attisdropped
JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
JOIN pg_catalog.pg_type b ON b.oid = COALESCE(NULLIF(y.typbasetype, 0), y.oid)
WHERE c.oid = CAST(:oid AS oid)

-- name: physical
-- The physical table with a name, its kind and the type of its key column.
SELECT format('%I.%I', n.nspname, c.relname) AS name,
       c.oid::bigint AS oid,
       c.relkind::text AS kind,
       CASE WHEN b.oid = 'bpchar'::regtype THEN 'bpchar' ELSE format_type(b.oid, NULL) END AS type
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = :key AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type b ON b.oid = COALESCE(NULLIF(y.typbasetype, 0), y.oid)
WHERE c.oid = to_regclass(:table)

-- name: expression_of
-- Evaluate an expression over the columns of a table for no row, to learn its type.
SELECT $expression FROM $table t LIMIT 0

-- name: show_expression
-- A view of an expression over the columns of a table, which knows the columns that it reads.
CREATE TEMPORARY VIEW sweeper_expression AS SELECT $expression AS value FROM $table t

-- name: columns_of_expression
-- The columns that the view of an expression reads.
SELECT a.attname::text AS name
FROM pg_catalog.pg_rewrite r
JOIN pg_catalog.pg_depend d
  ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE r.ev_class = 'pg_temp.sweeper_expression'::regclass AND d.refobjid = CAST(:oid AS oid) AND d.refobjsubid > 0
ORDER BY a.attnum

-- name: type_name
-- The name of a type; that of its base type for a domain.
SELECT CASE WHEN b.oid = 'bpchar'::regtype THEN 'bpchar' ELSE format_type(b.oid, NULL) END
FROM pg_catalog.pg_type y
JOIN pg_catalog.pg_type b ON b.oid = COALESCE(NULLIF(y.typbasetype, 0), y.oid)
WHERE y.oid = CAST(:oid AS oid)

-- name: foreign_keys
-- The foreign keys that refer to a table: the referring table, the columns, and the action on delete.
SELECT k.conname AS name,
       k.conrelid::bigint AS oid,
       format('%I.%I', n.nspname, c.relname) AS table_name,
       k.confdeltype::text AS action,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, pos)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.pos) AS columns,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, pos)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.pos) AS parent_columns,
       EXISTS (SELECT 1 FROM pg_catalog.pg_index i
               WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL
                 AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey) AS indexed
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.confrelid = CAST(:oid AS oid) AND k.conparentid = 0
ORDER BY k.conrelid, k.conname
