-- The tables, but for the sweeper's own, in which the session has written rows that are in no statistics yet. `tied`: a foreign key
-- leads from the table to one that is purged, and a delete may have unset it.
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
