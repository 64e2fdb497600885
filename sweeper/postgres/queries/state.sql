-- name: state_count
-- The number of rows of a table.
SELECT count(*) FROM sweeper.$table

-- name: state_rows_found
-- The rows of a table in the form in which the trigger records them.
SELECT CAST(t.id AS text) AS row_id, to_jsonb(t) AS here FROM sweeper.$table t

-- name: state_rows_recorded
-- What the newest event of each row records of it; NULL if the row was deleted or given another id. A truncation deletes all
-- rows before it.
SELECT l.row_id, l.event_id, true AS is_begun,
       CASE WHEN e.details -> 'now' ->> 'id' = l.row_id THEN e.details -> 'now' END AS recorded
FROM (
    SELECT c.row_id, max(e.id) AS event_id
    FROM sweeper.events e
    CROSS JOIN LATERAL (VALUES (e.details -> 'now' ->> 'id'), (e.details -> 'was' ->> 'id')) AS c (row_id)
    WHERE e.kind IN ('${prefix}_added', '${prefix}_changed', '${prefix}_dropped') AND c.row_id IS NOT NULL
        AND e.id > COALESCE((SELECT max(t.id) FROM sweeper.events t WHERE t.kind = '${prefix}_truncated'), -9223372036854775808)
    GROUP BY c.row_id
) l
JOIN sweeper.events e ON e.id = l.event_id

-- name: state_runs_found
-- The runs, each with the digest of its result in place of the result, because the event records the digest (run_close in
-- runs.sql).
SELECT CAST(r.id AS text) AS row_id,
       to_jsonb(r) || jsonb_build_object('result', 'sha256:' || encode(sha256(convert_to(r.result::text, 'UTF8')), 'hex')) AS here
FROM sweeper.runs r

-- name: state_runs_recorded
-- What the events record of each run; a later event replaces an earlier one. Events without an identity come from an earlier
-- version: they record fewer columns, and of a run's end only the outcome.
SELECT CAST(e.run_id AS text) AS row_id, max(e.id) AS event_id, bool_or(e.kind = 'run_opened') AS is_begun,
       jsonb_object_agg(k.name, k.value ORDER BY e.id) AS recorded
FROM sweeper.events e
CROSS JOIN LATERAL (
    SELECT CASE e.kind
               WHEN 'run_opened' THEN
                   CASE WHEN e.details ? 'identity'
                        THEN jsonb_build_object('finished_at', NULL, 'result', NULL, 'plan_changes', NULL, 'consent_events', NULL)
                        ELSE '{}' END
                   || jsonb_build_object('outcome', NULL)
               WHEN 'run_interrupted' THEN jsonb_build_object('outcome', 'interrupted')
               ELSE '{}'
           END
           || CASE WHEN e.details ? 'policy' THEN jsonb_build_object('policy_digest', e.details -> 'policy') ELSE '{}' END
           || CASE WHEN jsonb_typeof(e.details) = 'object' THEN e.details ELSE '{}' END AS recorded
) s
CROSS JOIN LATERAL jsonb_each(s.recorded) AS k (name, value)
WHERE e.kind IN ('run_opened', 'run_closed', 'run_interrupted') AND e.run_id IS NOT NULL
GROUP BY e.run_id

-- name: state_manifests_recorded
-- What the events record of each manifest; a later event replaces an earlier one. The place of a copy is not in the manifest's
-- row. Events of an earlier version record no instants.
SELECT e.details ->> 'manifest' AS row_id, max(e.id) AS event_id, bool_or(e.kind = 'manifest_frozen') AS is_begun,
       jsonb_object_agg(k.name, k.value ORDER BY e.id) AS recorded
FROM sweeper.events e
CROSS JOIN LATERAL (
    SELECT CASE e.kind
               WHEN 'manifest_frozen' THEN
                   CASE WHEN e.details ? 'frozen_at'
                        THEN jsonb_build_object('started_at', NULL, 'completed_at', NULL, 'recalled_at', NULL)
                        ELSE '{}' END
                   || jsonb_build_object('state', 'frozen')
               WHEN 'manifest_started' THEN jsonb_build_object('state', 'started')
               WHEN 'manifest_completed' THEN jsonb_build_object('state', 'completed')
               ELSE '{}'
           END || CASE WHEN e.kind = 'manifest_frozen' THEN e.details ELSE e.details - 'directory' END AS recorded
) s
CROSS JOIN LATERAL jsonb_each(s.recorded) AS k (name, value)
WHERE e.kind IN ('manifest_frozen', 'manifest_copied', 'manifest_started', 'manifest_completed', 'recalled')
    AND e.details ->> 'manifest' IS NOT NULL
GROUP BY e.details ->> 'manifest'

-- name: state_identities
-- The databases in which the events say that runs took place, each with the first such event; the oldest events do not say.
SELECT e.details ->> 'identity' AS identity, min(e.id) AS event_id
FROM sweeper.events e
WHERE e.kind = 'run_opened' AND e.details ? 'identity'
GROUP BY e.details ->> 'identity'
ORDER BY min(e.id)

-- name: state_orphans
-- The runs that tombstones name and that do not exist, each with the number of its tombstones and the first of them.
SELECT t.run_id, count(*) AS tombstones, min(t.id) AS first_id
FROM sweeper.tombstones t
LEFT JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.id IS NULL
GROUP BY t.run_id
ORDER BY t.run_id

-- name: state_differences
-- The differences between the rows of a table and what the events record: row by row, and column by column if the row exists.
-- Only columns that both the event and the table have are compared; instants may differ in their time zone. Few rows differ, so
-- whole rows are compared first.
WITH recorded AS (
$recorded
), found AS (
$found
), differing AS MATERIALIZED (
    SELECT COALESCE(t.row_id, f.row_id) AS id, t.event_id, t.recorded, f.here,
           CASE WHEN f.row_id IS NULL THEN 'missing'
                WHEN t.row_id IS NULL OR NOT t.is_begun THEN 'untold'
                WHEN t.recorded IS NULL THEN 'dropped'
                ELSE 'changed' END AS how
    FROM recorded t
    FULL JOIN found f ON f.row_id = t.row_id
    WHERE t.row_id IS NULL OR (f.row_id IS NULL) <> (t.recorded IS NULL)
        OR (f.row_id IS NOT NULL AND (NOT t.is_begun OR NOT f.here @> t.recorded))
)
SELECT d.id, d.event_id, d.how, c.name, c.recorded, c.here
FROM differing d
LEFT JOIN LATERAL (
    SELECT k.name, k.recorded, d.here ->> k.name AS here FROM jsonb_each_text(d.recorded) AS k (name, recorded)
    WHERE d.here ? k.name AND d.here ->> k.name IS DISTINCT FROM k.recorded
) c ON d.how = 'changed'
WHERE d.how <> 'changed' OR c.name IS NOT NULL
ORDER BY length(d.id), d.id, c.name
