-- Who has the fence, the longest first: a batch, or whoever places a hold.
SELECT a.pid, a.usename::text AS role, a.application_name AS application, a.state, a.xact_start AS since,
       l.mode = 'ExclusiveLock' AS alone
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.relation = 'sweeper.fence'::regclass AND l.granted
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
ORDER BY a.xact_start
