-- One rule with conditions on plans or consent: per account, the span of last activities in which it may apply.
SELECT c.account_id, c.id, c.last_activity_at, c.deleted_at
FROM (
    SELECT s.account_id, min(s.since) AS since, max(s.until) AS until
    FROM stays s
    WHERE $plans
    GROUP BY s.account_id
) AS stay
JOIN segments AS epoch ON epoch.account_id = stay.account_id AND epoch.purpose = $purpose
$join_accounts
CROSS JOIN LATERAL (
    SELECT k.*
    FROM conversations k
    WHERE k.account_id = stay.account_id
      AND k.last_activity_at >= GREATEST(stay.since, epoch.since)
      AND k.last_activity_at <= LEAST(epoch.until, $horizon)
    OFFSET 0
) AS c
WHERE GREATEST(stay.since, epoch.since) <= LEAST(epoch.until, $horizon)
  AND c.created_at <= stay.until
  AND $conditions
