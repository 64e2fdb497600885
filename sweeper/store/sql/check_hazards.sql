-- What the catalogue tells of the tables of a purge (with partitions and inheriting tables) that keeps rows back, forbids that
-- they go, or lets their content live on elsewhere: the kind of hazard, the table, the name of what does it, and a detail.
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
