-- Per account, what all its conversations share: its timeline and the first doubt about its histories, whether it is closed, the
-- plan at as-of with its purpose, and the epoch of that purpose that is open for training.
WITH owners AS (
$owners
), present AS (
    SELECT s.account_id, s.plan, p.purpose
    FROM pg_temp.sweeper_stays s
    LEFT JOIN jsonb_to_recordset($purposes) AS p (purpose text, plans jsonb) ON p.plans ? s.plan
    WHERE s.until = 'infinity'
), ended AS (
    SELECT e.account_id, e.purpose, max(e.closed) AS ended_at
    FROM pg_temp.sweeper_epochs e
    WHERE e.side = 'training'
    GROUP BY e.account_id, e.purpose
), leaving AS (
    SELECT p.account_id, n.purpose, min(p.effective_at) AS left_at
    FROM plan_changes p
    JOIN present n ON n.account_id = p.account_id
    JOIN jsonb_to_recordset($purposes) AS u (purpose text, plans jsonb) ON u.purpose = n.purpose
    WHERE $ahead AND p.effective_at > $as_of AND NOT COALESCE(u.plans ? p.plan, false)
    GROUP BY p.account_id, n.purpose
)
SELECT a.*,
       $closed AS closed,
       n.plan,
       CASE WHEN l.left_at IS NULL THEN n.purpose END AS purpose,
       l.left_at,
       d.ended_at,
       e.opened,
       e.event_id
FROM owners a
LEFT JOIN present n ON n.account_id = a.account_id
LEFT JOIN leaving l ON l.account_id = a.account_id AND l.purpose = n.purpose
LEFT JOIN ended d ON d.account_id = a.account_id AND d.purpose = n.purpose
LEFT JOIN pg_temp.sweeper_epochs e
       ON e.account_id = a.account_id AND e.purpose = n.purpose AND e.side = 'training' AND e.closed IS NULL AND e.opened < $as_of
