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
-- The schemas of some tables on which the role lacks USAGE.
SELECT DISTINCT quote_ident(n.nspname) AS schema
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[])) AND NOT has_schema_privilege(n.oid, 'USAGE')
ORDER BY 1

-- name: schema_owner
-- Who owns schema sweeper, and whether the role may act as that owner.
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
-- Whether the sweeper's own tables say their revision.
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
-- The function by which ids of holds are compared, where the role may not execute it.
SELECT p.oid::regprocedure::text AS function
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'sweeper' AND p.proname = 'spelling' AND NOT has_function_privilege(p.oid, 'EXECUTE')

-- name: check_touched
-- The tables that a purge touches with their partitions, and whether row-level security reaches the role there.
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
-- Of the privileges that a run needs, those that the role lacks; on every column that is named is as good as on the table.
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
-- Of some tables, which privileges a role that is neither the owner nor its member nor a superuser has on a column or on all.
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

-- name: check_disabled
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

-- name: check_triggers
-- The row triggers of some tables that run before a DELETE and so may keep rows back.
SELECT format('%I.%I', n.nspname, c.relname) AS table, quote_ident(t.tgname) AS trigger
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgrelid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[]))
  AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgparentid = 0
  AND (t.tgtype & 11) = 11  -- row (1), before (2), delete (8)
ORDER BY 1, 2

-- name: check_rules
-- The rewrite rules of some tables that act on DELETE.
SELECT format('%I.%I', n.nspname, c.relname) AS table, quote_ident(r.rulename) AS rule, r.is_instead
FROM pg_catalog.pg_rewrite r
JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE r.ev_class = ANY(CAST(CAST(:oids AS bigint[]) AS oid[])) AND r.ev_type = '4' AND r.ev_enabled IN ('O', 'A')
ORDER BY 1, 2

-- name: check_unkeyed
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
