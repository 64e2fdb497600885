-- Of some messages, those that may not be trained on, with the reason and since when; a message that is gone has no reason.
SELECT a.id AS message_id,
       r.reason,
       CASE r.reason WHEN 'plan' THEN r.left_at WHEN 'no_consent' THEN r.ended_at WHEN 'before_consent' THEN r.opened
                     WHEN 'too_old' THEN r.capped_at ELSE r.since END AS since
FROM unnest($ids) AS a (id)
LEFT JOIN (SELECT q.* FROM ($reasoned) AS q WHERE q.id = ANY($keys)) AS r ON r.id::text = a.id
WHERE r.id IS NULL OR r.reason IS NOT NULL
ORDER BY a.id
