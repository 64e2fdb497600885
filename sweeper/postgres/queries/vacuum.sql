-- name: flush_statistics
-- Let this session's deletes be counted now, not within a second.
SELECT pg_stat_force_next_flush()

-- name: dead_rows
-- The dead rows of tables as the server counts them, when they were vacuumed last, and whether this role may vacuum them.
SELECT format('%I.%I', n.nspname, c.relname) AS name,
       COALESCE(s.n_live_tup, 0) AS live,
       COALESCE(s.n_dead_tup, 0) AS dead,
       GREATEST(s.last_vacuum, s.last_autovacuum) AS vacuumed_at,
       COALESCE(GREATEST(s.last_vacuum, s.last_autovacuum), pg_postmaster_start_time()) AS unvacuumed_since,
       pg_has_role(c.relowner, 'USAGE') OR pg_has_role(d.datdba, 'USAGE')
       OR CASE WHEN current_setting('server_version_num')::integer >= 170000 THEN has_table_privilege(c.oid, 'MAINTAIN') ELSE false END
           AS allowed
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_database d ON d.datname = current_database()
LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
WHERE c.oid IN (
    SELECT COALESCE(p.relid, o.oid)
    FROM unnest(CAST(:oids AS bigint[])) AS o (oid)
    LEFT JOIN LATERAL pg_partition_tree(CAST(o.oid AS regclass)) AS p ON p.isleaf
)
ORDER BY n.nspname, c.relname

-- name: vacuum
-- Free the dead rows of a table, and count it again. A table that somebody else holds locked is left out.
VACUUM (ANALYZE, SKIP_LOCKED) $table

-- name: reach
-- What the server keeps beside its tables: archived WAL, standbys, replication slots, and the setting that logs statements.
SELECT current_setting('archive_mode') <> 'off' AS archives,
       (SELECT count(*) FROM pg_catalog.pg_stat_replication) AS standbys,
       (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS slots,
       CASE WHEN current_setting('log_statement') IN ('mod', 'all') THEN 'log_statement = ' || current_setting('log_statement')
            WHEN current_setting('log_min_duration_statement') <> '-1'
                THEN 'log_min_duration_statement = ' || current_setting('log_min_duration_statement')
       END AS logs
