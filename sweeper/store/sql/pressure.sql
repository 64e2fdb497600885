-- How hard the server has it now, as far as this role may see: replicas, WAL, sessions kept waiting, VACUUM of our tables.
-- After a failover this may be no primary any more; that is for the next write to find out, which waits for the new one.
SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END)
           - CAST('0/0' AS pg_lsn) AS wal_bytes,
       replicas.lag_seconds,
       replicas.lag_bytes,
       replicas.hidden,
       (SELECT count(*) FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
        WHERE NOT l.granted AND l.waitstart < clock_timestamp() - interval '1 second' AND l.locktype <> 'advisory'
          AND a.datname = current_database() AND l.pid <> pg_backend_pid()) AS blocked,
       (SELECT count(*) FROM pg_catalog.pg_locks l
        WHERE l.granted AND l.mode = 'ShareUpdateExclusiveLock' AND l.pid <> pg_backend_pid()
          AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
          AND l.relation = ANY(CAST(:oids AS oid[]))) AS vacuums
FROM (
    SELECT COALESCE(max(EXTRACT(epoch FROM r.replay_lag)), 0) AS lag_seconds,
           COALESCE(max(CASE WHEN NOT pg_catalog.pg_is_in_recovery()
                             THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.replay_lsn) END), 0) AS lag_bytes,
           count(*) FILTER (WHERE r.state IS NULL) AS hidden
    FROM pg_catalog.pg_stat_replication r
) AS replicas
