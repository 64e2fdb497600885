-- The tables from which the contract relations come: a table itself, or what a view reads, however deep.
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
