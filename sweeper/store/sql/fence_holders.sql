-- Who has the fence, the longest first: a batch, or whoever places a hold; of a transaction that was prepared, its name.
SELECT a.pid, COALESCE(a.usename, x.owner)::text AS role, a.application_name AS application, a.state, x.gid AS prepared,
       COALESCE(a.xact_start, x.prepared) AS since, l.mode = 'ExclusiveLock' AS alone
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_catalog.pg_prepared_xacts x ON l.pid IS NULL AND l.virtualtransaction = '-1/' || x.transaction
WHERE l.relation = 'sweeper.fence'::regclass AND l.granted
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
ORDER BY COALESCE(a.xact_start, x.prepared)
