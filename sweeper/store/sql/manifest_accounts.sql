-- Per account, what all its conversations share: doubts about its history, the plan at as-of with its purpose, and the epoch
-- of that purpose that is open for training.
CREATE TEMPORARY TABLE sweeper_accounts ON COMMIT DROP AS
WITH plan_doubts AS (
    SELECT DISTINCT p.account_id
    FROM plan_changes p
    WHERE p.id IS NULL OR p.effective_at IS NULL
       OR p.effective_at <> '-infinity' AND NOT (p.effective_at >= $plausible_from AND p.effective_at < $plausible_before)
), consent_doubts AS (
    SELECT DISTINCT e.account_id
    FROM consent_events e
    WHERE (e.purpose IS NULL OR e.purpose = ANY($purpose_names))
      AND (e.id IS NULL OR e.purpose IS NULL OR e.granted IS NULL OR e.recorded_at IS NULL
           OR NOT (e.recorded_at >= $plausible_from AND e.recorded_at < $plausible_before)
           OR NOT (e.effective_at >= $plausible_from AND e.effective_at < $plausible_before))
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
SELECT a.id AS account_id,
       a.closed_at,
       $plan_doubt OR $consent_doubt
       OR NOT COALESCE(a.closed_at >= $plausible_from AND a.closed_at < $plausible_before, true) AS doubtful,
       $closed AS closed,
       n.plan,
       CASE WHEN l.left_at IS NULL THEN n.purpose END AS purpose,
       l.left_at,
       d.ended_at,
       e.opened,
       e.event_id,
       $columns AS columns
FROM accounts a
LEFT JOIN plan_doubts pd ON pd.account_id = a.id
LEFT JOIN consent_doubts cd ON cd.account_id = a.id
LEFT JOIN present n ON n.account_id = a.id
LEFT JOIN leaving l ON l.account_id = a.id AND l.purpose = n.purpose
LEFT JOIN ended d ON d.account_id = a.id AND d.purpose = n.purpose
LEFT JOIN pg_temp.sweeper_epochs e
       ON e.account_id = a.id AND e.purpose = n.purpose AND e.side = 'training' AND e.closed IS NULL AND e.opened < $as_of
