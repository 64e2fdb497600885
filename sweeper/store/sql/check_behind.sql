-- The contract relations that exist, each with the tables and views that it is read from.
WITH RECURSIVE behind AS (
    SELECT c.relname::text AS relation, c.oid, c.relkind::text AS kind, true AS itself
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = ANY(CAST(:relations AS text[])) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION
    SELECT b.relation, c.oid, c.relkind::text, false
    FROM behind b
    JOIN pg_catalog.pg_rewrite r ON r.ev_class = b.oid AND r.ev_type = '1'
    JOIN pg_catalog.pg_depend d
      ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
    JOIN pg_catalog.pg_class c ON c.oid = d.refobjid AND c.oid <> b.oid
    WHERE b.kind IN ('v', 'm')
)
SELECT b.relation, b.oid::bigint AS oid, b.kind, b.itself, format('%I.%I', n.nspname, c.relname) AS name
FROM behind b
JOIN pg_catalog.pg_class c ON c.oid = b.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY b.relation, b.itself DESC, name
