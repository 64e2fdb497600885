-- Each message with the first reason that bars it from training, or none: what the conversation says first, then the message.
SELECT m.id, m.conversation_id, m.author::text AS author, m.created_at, c.account_id, c.kind, c.platform, c.due, c.since,
       p.plan, a.event_id, a.opened, a.left_at, a.ended_at, $capped AS capped_at, $body AS body,
       CASE
           WHEN c.id IS NULL OR c.reason = 'unclassified' OR NOT ($believed) THEN 'unclassified'
           WHEN c.reason IS NOT NULL THEN c.reason
           WHEN a.purpose IS NULL THEN 'plan'
           WHEN NOT (
               c.whole_plan
               OR COALESCE(m.created_at > a.opened, false)
               OR COALESCE(p.plan = ANY($purpose_plans), false)
           ) THEN 'plan'
           WHEN a.opened IS NULL THEN 'no_consent'
           WHEN NOT (c.whole OR m.created_at > a.opened) THEN 'before_consent'
           WHEN $capped <= $as_of THEN 'too_old'
       END AS reason
FROM messages m
LEFT JOIN pg_temp.sweeper_conversations c ON c.id = m.conversation_id
LEFT JOIN pg_temp.sweeper_accounts a ON a.account_id = c.account_id
CROSS JOIN LATERAL (SELECT a.plans[width_bucket(m.created_at, a.starts)] AS plan OFFSET 0) AS p
WHERE NOT COALESCE($believed AND m.created_at > $as_of, false) AND COALESCE(c.present, true)
