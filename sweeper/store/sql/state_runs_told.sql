-- What the events tell of each run, a later one in place of an earlier one. Those without an identity are of an earlier version:
-- they tell fewer columns, and of how a run ended only the outcome.
SELECT CAST(e.run_id AS text) AS row_id, max(e.id) AS event_id, bool_or(e.kind = 'run_opened') AS is_begun,
       jsonb_object_agg(k.name, k.value ORDER BY e.id) AS told
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
           || CASE WHEN jsonb_typeof(e.details) = 'object' THEN e.details ELSE '{}' END AS told
) s
CROSS JOIN LATERAL jsonb_each(s.told) AS k (name, value)
WHERE e.kind IN ('run_opened', 'run_closed', 'run_interrupted') AND e.run_id IS NOT NULL
GROUP BY e.run_id
