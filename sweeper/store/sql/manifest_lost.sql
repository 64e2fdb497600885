-- Of the rows of a manifest, those that may not be trained on, with the reason and since when; those recalled before left out if asked.
SELECT l.message_id, l.conversation_id, l.reason, LEAST(COALESCE(l.since, $as_of), $as_of) AS since
FROM (
    SELECT a.id::text AS message_id,
           a.conversation_id,
           CASE WHEN r.reason IS NOT NULL THEN r.reason
                WHEN r.id IS NULL AND t.purged_at IS NOT NULL THEN 'purged'
                WHEN r.id IS NULL THEN 'gone'
                WHEN a.expires_at <= $as_of THEN 'expired' END AS reason,
           CASE WHEN r.reason = 'plan' THEN r.left_at
                WHEN r.reason = 'no_consent' THEN r.ended_at
                WHEN r.reason = 'before_consent' THEN r.opened
                WHEN r.reason = 'too_old' THEN r.capped_at
                WHEN r.reason IS NOT NULL THEN r.since
                WHEN r.id IS NULL THEN t.purged_at
                ELSE a.expires_at END AS since
    FROM pg_temp.sweeper_manifest a
    LEFT JOIN ($reasoned) AS r ON r.id = a.id
    LEFT JOIN (
        SELECT t.record_id, max(t.purged_at) AS purged_at
        FROM sweeper.tombstones t JOIN sweeper.runs n ON n.id = t.run_id
        WHERE n.store = $store AND t.record = 'conversation'
        GROUP BY t.record_id
    ) AS t ON t.record_id = a.conversation_id AND r.id IS NULL
    WHERE r.id IS NULL OR r.reason IS NOT NULL OR a.expires_at <= $as_of
) AS l
WHERE NOT $only_new OR NOT EXISTS (
    SELECT FROM sweeper.revocations v WHERE v.manifest_id = $manifest_id AND v.message_id = l.message_id AND v.found_by = 'recall'
)
