-- Per account, the plans in force as known at as-of, each from its start to the next one's start.
CREATE TEMPORARY TABLE sweeper_stays ON COMMIT DROP AS
WITH changes AS (
    SELECT DISTINCT ON (p.account_id, p.effective_at) p.account_id, p.effective_at, p.plan::text AS plan
    FROM plan_changes p
    WHERE p.effective_at <= $as_of
    ORDER BY p.account_id, p.effective_at, p.id DESC
)
SELECT a.id AS account_id,
       c.plan,
       CASE WHEN lag(c.effective_at) OVER w IS NULL AND a.created_at >= $plausible_from AND a.created_at < $plausible_before
            THEN LEAST(c.effective_at, a.created_at) ELSE c.effective_at END AS since,
       COALESCE(lead(c.effective_at) OVER w, 'infinity') AS until
FROM changes c
JOIN accounts a ON a.id = c.account_id
WINDOW w AS (PARTITION BY c.account_id ORDER BY c.effective_at)
