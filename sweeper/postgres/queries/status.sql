-- name: operation_lease
-- The lease, read without a lock; the database's clock decides whether it has expired.
SELECT l.run_id, l.expires_at, l.expires_at > clock_timestamp() AS held, l.yields, l.wanted_at,
       (SELECT r.kind FROM sweeper.runs r WHERE r.id = l.run_id) AS kind
FROM sweeper.lease l WHERE l.store = :store

-- name: operation_runs
-- The newest runs of a store, and the newest of each kind if others hide it; for runs without a full result, the tombstones
-- tell what they purged.
SELECT r.id, r.kind, r.as_of, r.started_at, r.finished_at, r.outcome,
       r.result ->> 'stop_reason' AS stop_reason,
       r.result ->> 'guard' AS guard,
       COALESCE(r.result ->> 'stalled', 'false') = 'true' AS stalled,
       COALESCE(r.result ->> 'text', r.result ->> 'error') AS said,
       COALESCE(CAST(r.result ->> 'failed' AS bigint), 0) AS failed,
       COALESCE(CAST(r.result ->> 'spared' AS bigint), 0) AS skipped,
       COALESCE(CAST(r.result ->> 'purged' AS bigint),
                (SELECT count(*) FROM sweeper.tombstones t WHERE t.run_id = r.id AND t.record = 'conversation')) AS purged
FROM sweeper.runs r
WHERE r.id IN (SELECT n.id FROM sweeper.runs n WHERE n.store = :store ORDER BY n.id DESC LIMIT :limit)
   OR r.id IN (SELECT max(n.id) FROM sweeper.runs n WHERE n.store = :store AND n.outcome IS NOT NULL GROUP BY n.kind)
ORDER BY r.id DESC

-- name: operation_days
-- The runs of a store by the day in UTC on which they began: how many, how many of them did not end well, what they purged, and how
-- long they took. For runs without a full result, the tombstones tell what they purged; an interrupted run does not record its end.
SELECT CAST(timezone('UTC', w.started_at) AS date) AS day,
       count(*) AS runs,
       count(*) FILTER (WHERE w.outcome IN ('failed', 'refused', 'interrupted')) AS not_well,
       CAST(sum(w.conversations) AS bigint) AS conversations,
       CAST(sum(w.redactions) AS bigint) AS redactions,
       CAST(sum(w.feedback) AS bigint) AS feedback,
       CAST(COALESCE(sum(w.seconds), 0) AS double precision) AS seconds,
       CAST(COALESCE(max(w.seconds), 0) AS double precision) AS longest
FROM (
    SELECT r.started_at, r.outcome,
           COALESCE(CAST(r.result ->> 'purged' AS bigint), t.conversations) AS conversations,
           COALESCE(CAST(r.result ->> 'redacted' AS bigint), t.redactions) AS redactions,
           COALESCE(CAST(r.result ->> 'feedback_purged' AS bigint), t.feedback) AS feedback,
           CASE WHEN r.outcome <> 'interrupted' THEN extract(epoch FROM r.finished_at - r.started_at) END AS seconds
    FROM sweeper.runs r
    LEFT JOIN LATERAL (
        SELECT count(*) FILTER (WHERE t.record = 'conversation') AS conversations,
               count(*) FILTER (WHERE t.record = 'redaction') AS redactions,
               count(*) FILTER (WHERE t.record = 'feedback') AS feedback
        FROM sweeper.tombstones t
        WHERE t.run_id = r.id AND r.result ->> 'purged' IS NULL
    ) t ON true
    WHERE r.store = :store AND r.started_at > :since AND r.started_at <= :until
) AS w
GROUP BY 1
ORDER BY 1

-- name: operation_ended
-- How the newest ended plain run ended, and when the newest one ended that did everything it was asked to do.
SELECT (SELECT r.outcome FROM sweeper.runs r WHERE r.store = :store AND r.kind = 'run' AND r.outcome IS NOT NULL
        ORDER BY r.id DESC LIMIT 1) AS outcome,
       (SELECT r.finished_at FROM sweeper.runs r
        WHERE r.store = :store AND r.kind = 'run'
          AND (r.outcome = 'completed' OR r.outcome = 'stopped' AND r.result ->> 'stop_reason' = ANY(:ordered))
          AND COALESCE(r.result ->> 'stalled', 'false') = 'false'
        ORDER BY r.id DESC LIMIT 1) AS success

-- name: recent_pace
-- How much the newest runs that purged anything did, and in which time; an interrupted run does not record when it ended.
SELECT COALESCE(sum(w.purged), 0) AS purged, COALESCE(sum(w.seconds), 0) AS seconds
FROM (
    SELECT COALESCE(CAST(r.result ->> 'purged' AS bigint),
                    (SELECT count(*) FROM sweeper.tombstones t WHERE t.run_id = r.id AND t.record = 'conversation')) AS purged,
           extract(epoch FROM COALESCE(r.finished_at, CAST(:now AS timestamptz)) - r.started_at) AS seconds
    FROM sweeper.runs r
    WHERE r.store = :store AND r.outcome IS DISTINCT FROM 'interrupted'
      AND (r.outcome IS NOT NULL OR EXISTS (SELECT FROM sweeper.lease l WHERE l.run_id = r.id AND l.expires_at > clock_timestamp()))
    ORDER BY r.id DESC
    LIMIT :runs
) AS w
WHERE w.purged > 0 AND w.seconds > 0

-- name: operation_backfilled
-- How much the runs of a backfill have purged so far.
SELECT COALESCE(sum(COALESCE(CAST(r.result ->> 'purged' AS bigint),
                             (SELECT count(*) FROM sweeper.tombstones t WHERE t.run_id = r.id AND t.record = 'conversation'))), 0) AS purged
FROM sweeper.runs r
WHERE r.backfill_id = :backfill

-- name: operation_purged
-- How much was purged in a time span, by kind of record and rule, from the tombstones.
SELECT t.record, t.rule, count(*) AS purged
FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.purged_at > :since AND t.purged_at <= :until
GROUP BY t.record, t.rule

-- name: operation_reported
-- What the newest report on the present found.
SELECT e.at, e.details FROM sweeper.events e
WHERE e.kind = 'reported' AND e.details ->> 'store' = :store AND CAST(e.details ->> 'present' AS boolean)
ORDER BY e.id DESC
LIMIT 1

-- name: operation_manifests
-- How many manifests in use are in each state, the oldest last recall, and how many were never recalled.
SELECT m.state, count(*) AS manifests, count(*) FILTER (WHERE m.recalled_at IS NULL) AS never_recalled, min(m.recalled_at) AS recalled_at
FROM ($stored) m WHERE m.store = :store AND m.retired_at IS NULL GROUP BY m.state

-- name: operation_manifest_places
-- Where the manifests in use of a store are.
SELECT m.id, m.directory FROM ($stored) m
WHERE m.store = :store AND m.retired_at IS NULL
ORDER BY m.frozen_at, m.id

-- name: operation_counted
-- What the two newest sweeps with a full result purged, skipped and found in doubt.
SELECT r.id AS run, r.finished_at AS at, r.result -> 'spared_by_reason' AS skipped, r.result -> 'unclassified_by_reason' AS doubted,
       COALESCE(r.result -> 'guards_off', '[]') AS guards_off,
       CAST(r.result ->> 'purged' AS bigint) + CAST(r.result ->> 'feedback_purged' AS bigint)
           + COALESCE(CAST(r.result ->> 'redacted' AS bigint), 0) AS purged
FROM sweeper.runs r
WHERE r.store = :store AND r.kind = 'run' AND r.result -> 'unclassified_by_reason' IS NOT NULL
ORDER BY r.id DESC LIMIT 2

-- name: operation_uncovered
-- How many committed rows no checkpoint covers yet, counted up to a limit.
SELECT count(*)
FROM (
    SELECT 1
    FROM sweeper.ledger_sources s
    CROSS JOIN LATERAL unnest(s.unnumbered) AS r (ids)
    JOIN sweeper.$source t
        ON t.id >= coalesce(lower(r.ids), -9223372036854775808) AND (upper(r.ids) IS NULL OR t.id < upper(r.ids))
    WHERE s.source = '$source'
    LIMIT :limit
) AS uncovered

-- name: totals_purged
-- How much was ever purged, by kind of record and rule: from the results of runs, or from the tombstones of runs without one.
SELECT p.record, p.rule, CAST(sum(p.purged) AS bigint) AS purged
FROM (
    SELECT 'conversation' AS record, k.key AS rule, CAST(k.value AS bigint) AS purged
    FROM sweeper.runs r CROSS JOIN jsonb_each_text(r.result -> 'by_rule') AS k
    WHERE r.store = :store
    UNION ALL
    SELECT 'redaction', k.key, CAST(k.value AS bigint)
    FROM sweeper.runs r CROSS JOIN jsonb_each_text(r.result -> 'redacted_by_rule') AS k
    WHERE r.store = :store AND r.result -> 'by_rule' IS NOT NULL
    UNION ALL
    SELECT 'feedback', k.key, CAST(k.value AS bigint)
    FROM sweeper.runs r CROSS JOIN jsonb_each_text(r.result -> 'feedback_by_rule') AS k
    WHERE r.store = :store AND r.result -> 'by_rule' IS NOT NULL
    UNION ALL
    SELECT t.record, t.rule, count(*)
    FROM sweeper.runs r JOIN sweeper.tombstones t ON t.run_id = r.id
    WHERE r.store = :store AND r.result -> 'by_rule' IS NULL
    GROUP BY t.record, t.rule
) AS p
GROUP BY p.record, p.rule

-- name: totals_of_runs
-- The totals that all ended runs of a store counted: what, under which label, how much.
WITH ended AS MATERIALIZED (
    SELECT r.kind, r.outcome, r.result FROM sweeper.runs r WHERE r.store = :store AND r.outcome IS NOT NULL
)
SELECT 'runs' AS what, e.kind || ' ' || e.outcome AS label, CAST(count(*) AS double precision) AS total
FROM ended e GROUP BY e.kind, e.outcome
UNION ALL
SELECT 'refusals', e.result ->> 'guard', count(*) FROM ended e WHERE e.result ->> 'guard' IS NOT NULL GROUP BY e.result ->> 'guard'
UNION ALL
SELECT 'spared', k.key, sum(CAST(k.value AS bigint))
FROM ended e CROSS JOIN jsonb_each_text(e.result -> 'spared_by_reason') AS k GROUP BY k.key
UNION ALL
SELECT 'failed', '', COALESCE(sum(CAST(e.result ->> 'failed' AS bigint)), 0) FROM ended e
UNION ALL
SELECT 'batch seconds', '', COALESCE(sum(CAST(e.result -> 'batches' ->> 'seconds' AS double precision)), 0) FROM ended e
UNION ALL
SELECT 'batch buckets', k.key, sum(CAST(k.value AS bigint))
FROM ended e CROSS JOIN jsonb_each_text(e.result -> 'batches' -> 'buckets') AS k GROUP BY k.key
UNION ALL
SELECT 'pauses', k.key, sum(CAST(k.value ->> 'count' AS bigint))
FROM ended e CROSS JOIN jsonb_each(e.result -> 'pauses') AS k GROUP BY k.key
UNION ALL
SELECT 'pause seconds', k.key, sum(CAST(k.value ->> 'seconds' AS double precision))
FROM ended e CROSS JOIN jsonb_each(e.result -> 'pauses') AS k GROUP BY k.key

-- name: last_sweep
-- When the latest sweep began that was complete or was ended by its own budget: it looked at what was due by then.
SELECT max(least(r.started_at, r.as_of)) AS at
FROM sweeper.runs r
WHERE r.store = :store AND r.kind = 'run' AND (r.outcome = 'completed' OR r.result ->> 'stop_reason' IN ('max_runtime', 'max_purge'))

-- name: last_manifest
-- When the latest manifest of a store was frozen.
SELECT max(m.frozen_at) AS at FROM sweeper.manifests m WHERE m.store = :store

-- name: last_event
-- When the latest event of a kind was recorded for a store or for all stores.
SELECT max(e.at) AS at FROM sweeper.events e WHERE e.kind = :kind AND coalesce(e.details ->> 'store', :store) = :store

-- name: first_event
-- When the first event of a kind was recorded for a store.
SELECT min(e.at) AS at FROM sweeper.events e WHERE e.kind = :kind AND e.details ->> 'store' = :store

-- name: pressure
-- The server's load as far as this role may see it: replicas, WAL, sessions waiting for locks, VACUUM of our tables. After a
-- failover the server may no longer be the primary; the next write finds that out and waits for the new one.
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

-- name: signs
-- The signs that processes show in this database now; every role may read the names of sessions.
SELECT DISTINCT a.application_name AS text FROM pg_catalog.pg_stat_activity a
WHERE a.datname = current_database() AND a.application_name LIKE 'sweeper %'

-- name: done_by_run
-- How many conversations a run has purged or redacted.
SELECT count(*) FROM sweeper.tombstones t WHERE t.run_id = :run AND t.record IN ('conversation', 'redaction')

-- name: done_meanwhile
-- How many conversations a run has purged or redacted since a tombstone, and the newest that was looked at. Read are at most so many
-- after that one, by the primary key; runs of other stores may commit lower ids later, so that theirs are looked at again.
SELECT count(*) FILTER (WHERE t.run_id = :run AND t.record IN ('conversation', 'redaction')) AS done,
       COALESCE(CASE WHEN count(*) < :limit THEN max(t.id) FILTER (WHERE t.run_id = :run) ELSE max(t.id) END, :after) AS last
FROM (
    SELECT s.id, s.run_id, s.record FROM sweeper.tombstones s WHERE s.id > :after ORDER BY s.id LIMIT :limit
) AS t

-- name: newest_tombstone
-- The newest tombstone; 0 if there is none.
SELECT COALESCE(max(t.id), 0) FROM sweeper.tombstones t

-- name: replicas
-- The replicas and how far each is behind, as far as this role may see it.
SELECT r.application_name AS name, r.state IS NULL AS hidden, EXTRACT(epoch FROM r.replay_lag) AS seconds,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.replay_lsn) END AS bytes
FROM pg_catalog.pg_stat_replication r
ORDER BY bytes DESC NULLS LAST, name
LIMIT 20
