-- name: fence_is_installed
-- Whether the row trigger that makes the placement of a legal hold take the fence exists and fires, also for replicated rows.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_trigger t
    WHERE t.tgrelid = to_regclass('sweeper.legal_holds') AND t.tgname = 'fence' AND t.tgenabled = 'A' AND t.tgtype & 1 = 1
)

-- name: fence_shared
-- Share the fence, which every placement of a legal hold takes exclusively: holds read after this are complete.
LOCK TABLE sweeper.fence IN SHARE MODE

-- name: fence_exclusive
-- Take the fence exclusively: every batch that has begun has ended, and no other begins before this transaction ends.
LOCK TABLE sweeper.fence IN EXCLUSIVE MODE

-- name: fence_holders
-- The holders of the fence, the longest first: a batch or the placement of a hold; for a prepared transaction its name.
SELECT a.pid, COALESCE(a.usename, x.owner)::text AS role, a.application_name AS application, a.state, x.gid AS prepared,
       COALESCE(a.xact_start, x.prepared) AS since, l.mode = 'ExclusiveLock' AS alone
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_catalog.pg_prepared_xacts x ON l.pid IS NULL AND l.virtualtransaction = '-1/' || x.transaction
WHERE l.relation = 'sweeper.fence'::regclass AND l.granted
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
ORDER BY COALESCE(a.xact_start, x.prepared)
