-- Per account, the plans in force as known at as-of, each from its start to the next one's start (policy, Plan in force).
SELECT a.id AS account_id,
       c.plan,
       CASE WHEN lag(c.effective_at) OVER w IS NULL AND $created_believed
            THEN LEAST(c.effective_at, a.created_at) ELSE c.effective_at END AS since,
       COALESCE(lead(c.effective_at) OVER w, 'infinity') AS until
FROM (
    SELECT DISTINCT ON (p.account_id, p.effective_at) p.account_id, p.effective_at, p.plan::text AS plan
    FROM plan_changes p
    WHERE $plan_changes AND p.effective_at <= $as_of
    ORDER BY p.account_id, p.effective_at, p.id DESC
) AS c
JOIN $accounts a ON a.id = c.account_id
WINDOW w AS (PARTITION BY c.account_id ORDER BY c.effective_at)
