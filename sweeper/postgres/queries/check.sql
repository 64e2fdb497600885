-- name: check_session
-- The server, the role, and the settings of the session that a purge depends on.
SELECT current_setting('server_version_num')::integer AS version_number,
       current_setting('server_version') AS version,
       quote_ident(current_user) AS role,
       quote_ident(current_database()) AS database,
       has_database_privilege(current_database(), 'TEMPORARY') AS temporary,
       pg_catalog.pg_is_in_recovery() AS standby,
       current_setting('transaction_read_only')::boolean AS read_only,
       current_setting('session_replication_role') AS replication_role,
       (SELECT s.setting::integer FROM pg_catalog.pg_settings s WHERE s.name = 'deadlock_timeout') AS deadlock_timeout_ms

-- name: check_schemas
-- The schemas of the given tables on which the role lacks USAGE.
SELECT DISTINCT quote_ident(n.nspname) AS schema
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[])) AND NOT has_schema_privilege(n.oid, 'USAGE')
ORDER BY 1

-- name: schema_owner
-- The owner of schema sweeper, and whether the role may act as that owner.
SELECT r.rolname::text AS name,
       r.rolname <> current_user
       AND pg_has_role(r.oid, CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END) AS may_act
FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
WHERE n.nspname = 'sweeper'

-- name: check_revision
-- The revision of the sweeper's own tables.
SELECT v.version_num FROM sweeper.schema_version v

-- name: check_own_revision
-- Whether the table with the revision of the sweeper's own tables exists and can be read.
SELECT EXISTS (
    SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'sweeper' AND c.relname = 'schema_version' AND has_schema_privilege(n.oid, 'USAGE')
      AND has_table_privilege(c.oid, 'SELECT')
)

-- name: check_own
-- The sweeper's own tables that exist, and whether the role may read each.
SELECT c.relname::text AS table,
       c.oid::bigint AS oid,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'sweeper' AND c.relkind IN ('r', 'p')

-- name: check_own_triggers
-- The triggers of the sweeper's own tables and whether they fire.
SELECT c.relname::text AS table, t.tgname::text AS trigger, t.tgenabled IN ('O', 'A') AS fires
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'sweeper' AND NOT t.tgisinternal

-- name: check_relations
-- The contract relations that exist.
SELECT c.relname::text AS relation, c.oid::bigint AS oid, c.relkind::text AS kind, format('%I.%I', n.nspname, c.relname) AS name
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relname = ANY(CAST(:relations AS text[])) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY c.relname

-- name: check_spelling
-- The function that compares the ids of holds, if the role may not execute it.
SELECT p.oid::regprocedure::text AS function
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'sweeper' AND p.proname = 'spelling' AND NOT has_function_privilege(p.oid, 'EXECUTE')

-- name: check_touched
-- The tables that a purge touches, with their partitions, and whether row-level security applies to the role there.
WITH RECURSIVE touched AS (
    SELECT unnest(CAST(CAST(:oids AS bigint[]) AS oid[])) AS oid
    UNION
    SELECT i.inhrelid FROM touched t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid
)
SELECT c.oid::bigint AS oid, format('%I.%I', n.nspname, c.relname) AS name, row_security_active(c.oid) AS secured
FROM touched t
JOIN pg_catalog.pg_class c ON c.oid = t.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY 2

-- name: check_privileges
-- Of the privileges that a run needs, those that the role lacks; a privilege on every named column is as good as one on the
-- table.
SELECT n.number
FROM jsonb_to_recordset(CAST(:needs AS jsonb)) AS n (number integer, oid bigint, privilege text, columns text[], any_column boolean)
WHERE NOT CASE
    WHEN has_table_privilege(CAST(n.oid AS oid), n.privilege) THEN true
    WHEN n.any_column THEN has_any_column_privilege(CAST(n.oid AS oid), n.privilege)
    ELSE COALESCE((SELECT bool_and(has_column_privilege(a.attrelid, a.attnum, n.privilege))
                   FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = CAST(n.oid AS oid) AND a.attname = ANY(n.columns) AND NOT a.attisdropped), false)
END
ORDER BY n.number

-- name: check_people
-- The privileges on the given tables, or on any of their columns, that some role other than an owner or superuser has.
SELECT c.oid::bigint AS oid, p.privilege
FROM pg_catalog.pg_class c
CROSS JOIN (VALUES ('INSERT'), ('UPDATE')) AS p (privilege)
WHERE c.oid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[]))
  AND EXISTS (
      SELECT FROM pg_catalog.pg_roles r
      WHERE NOT pg_has_role(r.oid, c.relowner, 'USAGE') AND NOT r.rolsuper AND r.rolname NOT LIKE 'pg\_%'
        AND has_any_column_privilege(r.oid, c.oid, p.privilege)
  )

-- name: check_indexes
-- The usable indexes of the given tables: key columns in order (NULL for an expression) and predicate.
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

-- name: check_disabled
-- The disabled triggers of foreign keys among the given tables.
SELECT format('%I.%I', n.nspname, c.relname) AS table,
       quote_ident(k.conname) AS key,
       quote_ident(t.tgname) AS trigger
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint AND k.contype = 'f'
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.confrelid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[])) AND t.tgisinternal AND t.tgenabled NOT IN ('O', 'A')
ORDER BY 1, 2, 3

-- name: check_hazards
-- What the catalogue shows on the tables of a purge, with partitions and inheriting tables, that hides rows, prevents their
-- deletion, or keeps their content elsewhere: the kind of hazard, the table, the name of the object that causes it, and a
-- detail.
WITH RECURSIVE touched AS (
    SELECT unnest(CAST(CAST(:oids AS bigint[]) AS oid[])) AS oid
    UNION
    SELECT i.inhrelid FROM touched t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid
),
tables AS (
    SELECT c.oid, c.relkind, c.relispartition, c.relreplident, n.nspname, c.relname, format('%I.%I', n.nspname, c.relname) AS name
    FROM touched t
    JOIN pg_catalog.pg_class c ON c.oid = t.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
),
views AS (
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = ANY(CAST(:relations AS text[])) AND c.relkind = 'v'
),
readers AS (
    SELECT t.oid, 'r'::"char" AS relkind, t.name, t.name AS base FROM tables t
    UNION
    SELECT c.oid, c.relkind, format('%I.%I', n.nspname, c.relname), r.base
    FROM readers r
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = r.oid
        AND d.classid = 'pg_catalog.pg_rewrite'::regclass
    JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid AND w.ev_type = '1'
    JOIN pg_catalog.pg_class c ON c.oid = w.ev_class AND c.oid <> r.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
),
triggers AS (
    SELECT t.tgrelid,
           quote_ident(t.tgname) AS name,
           t.tgtype,
           concat_ws(' and ', CASE WHEN t.tgtype & 4 > 0 THEN 'INSERT' END, CASE WHEN t.tgtype & 8 > 0 THEN 'DELETE' END,
                     CASE WHEN t.tgtype & 16 > 0 THEN 'UPDATE' END) AS events,
           format('%I.%I()', f.nspname, p.proname) || COALESCE(' of extension ' || (
               SELECT quote_ident(e.extname)
               FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
               WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                 AND d.refclassid = 'pg_catalog.pg_extension'::regclass
           ), '') AS function
    FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    JOIN pg_catalog.pg_namespace f ON f.oid = p.pronamespace
    WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgparentid = 0 AND t.tgtype & 28 > 0
),
published AS (
    SELECT t.oid, t.name, quote_ident(p.pubname) AS publication, p.pubdelete
    FROM pg_catalog.pg_publication_tables l
    JOIN pg_catalog.pg_publication p ON p.pubname = l.pubname
    JOIN tables t ON t.nspname = l.schemaname AND t.relname = l.tablename
)
SELECT CASE WHEN t.tgtype & 11 = 11 THEN 'before' ELSE 'trigger' END AS kind,
       b.name AS table, t.name AS name, t.events AS events, t.function AS detail
FROM tables b JOIN triggers t ON t.tgrelid = b.oid
WHERE t.tgtype & 2 = 0 OR t.tgtype & 8 > 0
UNION ALL
SELECT 'instead', v.name, t.name, '', t.function FROM views v JOIN triggers t ON t.tgrelid = v.oid WHERE t.tgtype & 72 = 72
UNION ALL
SELECT CASE WHEN v.oid IS NOT NULL THEN 'instead' WHEN r.ev_type = '4' THEN 'rule' ELSE 'rule_also' END,
       COALESCE(b.name, v.name), quote_ident(r.rulename), CASE r.ev_type WHEN '2' THEN 'UPDATE' WHEN '3' THEN 'INSERT' ELSE 'DELETE' END,
       'rule'
FROM pg_catalog.pg_rewrite r
LEFT JOIN tables b ON b.oid = r.ev_class
LEFT JOIN views v ON v.oid = r.ev_class AND r.ev_type = '4'
WHERE r.ev_type IN ('2', '3', '4') AND r.ev_enabled IN ('O', 'A') AND (b.oid IS NOT NULL OR v.oid IS NOT NULL)
UNION ALL
SELECT 'materialized', r.name, string_agg(r.base, ', ' ORDER BY r.base), '', '' FROM readers r WHERE r.relkind = 'm' GROUP BY r.name
UNION ALL
SELECT 'inherits', t.name, p.name, '', ''
FROM tables t JOIN pg_catalog.pg_inherits i ON i.inhrelid = t.oid JOIN tables p ON p.oid = i.inhparent
WHERE NOT t.relispartition
UNION ALL
SELECT 'foreign', t.name, '', '', '' FROM tables t WHERE t.relkind = 'f'
UNION ALL
SELECT 'unpublished', p.name, p.publication, '', '' FROM published p WHERE NOT p.pubdelete
UNION ALL
SELECT DISTINCT 'identity', t.name, p.publication, '', ''
FROM tables t
JOIN published p ON p.pubdelete AND (p.oid = t.oid OR p.oid IN (SELECT a.relid FROM pg_partition_ancestors(t.oid) a))
WHERE t.relkind = 'r' AND t.relreplident <> 'f'
  AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_index i
      WHERE i.indrelid = t.oid AND i.indisvalid AND i.indimmediate
        AND CASE t.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
  )
UNION ALL
SELECT 'subscribed', t.name, quote_ident(s.subname), '', ''
FROM tables t JOIN pg_catalog.pg_subscription_rel r ON r.srrelid = t.oid JOIN pg_catalog.pg_subscription s ON s.oid = r.srsubid
UNION ALL
SELECT 'large_object', t.name, quote_ident(a.attname), '', ''
FROM tables t
JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type y ON y.oid = a.atttypid AND (y.typname = 'lo' OR y.oid = 'pg_catalog.oid'::regtype)
WHERE NOT t.relispartition
  AND NOT EXISTS (SELECT FROM triggers g WHERE g.tgrelid = t.oid AND g.tgtype & 8 > 0 AND g.function LIKE '%.lo\_manage()%')
UNION ALL
SELECT 'forbids', format('%I.%I', n.nspname, c.relname), quote_ident(k.conname), t.name, CASE k.confdeltype WHEN 'r' THEN 'RESTRICT' ELSE 'NO ACTION' END
FROM tables t
JOIN pg_catalog.pg_constraint k ON k.contype = 'f' AND k.confrelid = t.oid AND k.confdeltype IN ('a', 'r') AND k.conparentid = 0
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.conrelid <> ALL(CAST(CAST(:known AS bigint[]) AS oid[]))
ORDER BY 1, 2, 3

-- name: check_outside
-- The trigger functions of the given tables that seem to act outside of the transaction, where nothing is rolled back.
WITH RECURSIVE touched AS (
    SELECT unnest(CAST(CAST(:oids AS bigint[]) AS oid[])) AS oid
    UNION
    SELECT i.inhrelid FROM touched t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid
)
SELECT DISTINCT p.oid::regprocedure::text AS function
FROM touched t
JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal AND g.tgenabled IN ('O', 'A')
JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE NOT l.lanpltrusted AND l.lanname NOT IN ('c', 'internal')
   OR l.lanname NOT IN ('c', 'internal') AND p.prosrc ~* 'dblink|\mhttp|\mnet\.http|\mprogram\M|lo_export|pg_background|autonomous'
ORDER BY 1

-- name: check_unkeyed
-- Tables unknown to the purge with a column that is named like a child's key and has no foreign key.
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

-- name: forbid_whole_reads
-- Let the planner of this transaction read no table whole if an index can serve.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'on', true)

-- name: explain_key
-- How the planner finds the rows of one key.
EXPLAIN (VERBOSE, FORMAT JSON) SELECT 1 FROM $table t WHERE $key = (SELECT CAST(NULL AS $type))

-- name: explain_search
-- How the planner searches a view.
EXPLAIN (VERBOSE, FORMAT JSON) SELECT 1 FROM $relation r WHERE $condition

-- name: explain_output
-- Of which expressions a view makes what is searched.
EXPLAIN (VERBOSE, FORMAT JSON) SELECT $selected FROM $relation r

-- name: small_tables
-- The tables that have few rows by the statistics of the planner.
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.reltuples >= 0 AND c.reltuples < 1000

-- name: partial_indexes
-- The names of all indexes on a part of their table.
SELECT c.relname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indpred IS NOT NULL
