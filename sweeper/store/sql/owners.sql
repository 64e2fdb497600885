-- Per account, what all its conversations share: its timeline (in `starts`, when each plan came into force, in order; in `plans`,
-- which) and the first doubt about its histories.
SELECT a.id AS account_id,
       a.closed_at,
       t.starts,
       t.plans,
       CASE
           WHEN e.account_id IS NOT NULL THEN 'consent_event'
           WHEN p.account_id IS NOT NULL THEN 'plan_change'
           WHEN NOT COALESCE($closed_believed, true) THEN 'closed_at'
       END AS doubt
FROM accounts a
LEFT JOIN (
    SELECT s.account_id, array_agg(s.since ORDER BY s.since) AS starts, array_agg(s.plan ORDER BY s.since) AS plans
    FROM $stays s
    GROUP BY s.account_id
) AS t ON t.account_id = a.id
LEFT JOIN (
    SELECT DISTINCT p.account_id
    FROM plan_changes p
    WHERE $uses_plans AND (p.id IS NULL OR p.effective_at IS NULL OR p.effective_at <> '-infinity' AND NOT $change_believed)
) AS p ON p.account_id = a.id
LEFT JOIN (
    SELECT DISTINCT e.account_id
    FROM consent_events e
    WHERE (e.purpose IS NULL OR e.purpose = ANY($purpose_names))
      AND (e.id IS NULL OR e.purpose IS NULL OR e.granted IS NULL OR e.recorded_at IS NULL
           OR NOT $recorded_believed OR NOT $effective_believed)
) AS e ON $uses_purposes AND e.account_id = a.id
