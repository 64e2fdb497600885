-- What the events tell of each manifest, a later one in place of an earlier one; where a copy of it lies is not in its row.
-- Those of an earlier version tell no instants.
SELECT e.details ->> 'manifest' AS row_id, max(e.id) AS event_id, bool_or(e.kind = 'manifest_frozen') AS is_begun,
       jsonb_object_agg(k.name, k.value ORDER BY e.id) AS told
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
           END || CASE WHEN e.kind = 'manifest_frozen' THEN e.details ELSE e.details - 'directory' END AS told
) s
CROSS JOIN LATERAL jsonb_each(s.told) AS k (name, value)
WHERE e.kind IN ('manifest_frozen', 'manifest_copied', 'manifest_started', 'manifest_completed', 'recalled')
    AND e.details ->> 'manifest' IS NOT NULL
GROUP BY e.details ->> 'manifest'
