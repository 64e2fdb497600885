-- Per account of the range: its stays on plans, its epochs of consent, and the gaps between them. A proposal only: what
-- is found here is decided again from the facts.
WITH members AS (
    SELECT a.id AS account_id, a.created_at, a.closed_at
    FROM accounts a
    WHERE $accounts
), changes AS (
    SELECT DISTINCT ON (p.account_id, p.effective_at) p.account_id, p.effective_at, p.plan
    FROM plan_changes p
    WHERE $plan_changes AND p.effective_at <= :as_of
    ORDER BY p.account_id, p.effective_at, p.id DESC
), stays AS (
    SELECT c.account_id,
           c.plan,
           CASE WHEN lag(c.effective_at) OVER w IS NULL AND m.created_at >= :plausible_from
                THEN LEAST(c.effective_at, m.created_at) ELSE c.effective_at END AS since,
           COALESCE(lead(c.effective_at) OVER w, 'infinity') AS until
    FROM changes c
    JOIN members m USING (account_id)
    WINDOW w AS (PARTITION BY c.account_id ORDER BY c.effective_at)
), purposes AS (
    SELECT p.purpose, ARRAY(SELECT jsonb_array_elements_text(p.plans)) AS plans, p.not_before
    FROM jsonb_to_recordset(CAST(:purposes AS jsonb)) AS p (purpose text, plans jsonb, not_before timestamptz)
), inside AS (
    SELECT s.account_id, p.purpose, s.since, s.until, COALESCE(s.plan = ANY(p.plans), false) AS belongs
    FROM stays s CROSS JOIN purposes p
), memberships AS (
    SELECT i.*,
           min(i.since) FILTER (WHERE NOT i.belongs) OVER (PARTITION BY i.account_id, i.purpose ORDER BY i.since DESC) AS left_at,
           max(i.until) FILTER (WHERE NOT i.belongs) OVER (PARTITION BY i.account_id, i.purpose ORDER BY i.since) AS entered_at
    FROM inside i
), events AS (
    SELECT e.account_id,
           e.purpose,
           e.granted,
           GREATEST(e.recorded_at, e.effective_at, p.not_before) AS opened,
           min(e.recorded_at) FILTER (WHERE NOT e.granted)
               OVER (PARTITION BY e.account_id, e.purpose ORDER BY e.recorded_at DESC, e.id DESC) AS withdrawn_at
    FROM consent_events e
    JOIN purposes p ON p.purpose = e.purpose
    WHERE $consent_events AND e.recorded_at <= :as_of
), grants AS (
    SELECT e.account_id,
           e.purpose,
           e.opened,
           m.entered_at,
           LEAST(e.withdrawn_at, m.left_at, CASE WHEN a.closed_at <= :as_of THEN a.closed_at END) AS closed
    FROM events e
    JOIN members a ON a.account_id = e.account_id
    JOIN memberships m
      ON m.account_id = e.account_id AND m.purpose = e.purpose AND m.belongs AND m.since <= e.opened AND e.opened < m.until
    WHERE e.granted AND e.opened <= :as_of
), epochs AS (
    SELECT g.account_id, g.purpose, min(g.opened) AS opened, g.closed, max(g.entered_at) AS entered_at
    FROM grants g
    WHERE g.closed IS NULL OR g.closed > g.opened
    GROUP BY g.account_id, g.purpose, g.closed
), segments AS (
    SELECT e.account_id, e.purpose, CASE WHEN e.closed IS NULL THEN 'open' ELSE 'closed' END AS state,
           e.opened AS since, COALESCE(e.closed, 'infinity') AS until, e.closed, e.entered_at
    FROM epochs e
    UNION ALL
    SELECT e.account_id, e.purpose, 'none',
           COALESCE(lag(e.closed) OVER (PARTITION BY e.account_id, e.purpose ORDER BY e.opened), '-infinity'), e.opened, NULL, NULL
    FROM epochs e
    UNION ALL
    SELECT e.account_id, e.purpose, 'none', max(e.closed), 'infinity', NULL, NULL
    FROM epochs e
    GROUP BY e.account_id, e.purpose
    HAVING bool_and(e.closed IS NOT NULL)
    UNION ALL
    SELECT m.account_id, p.purpose, 'none', '-infinity', 'infinity', NULL, NULL
    FROM members m CROSS JOIN purposes p
    WHERE NOT EXISTS (SELECT 1 FROM epochs e WHERE e.account_id = m.account_id AND e.purpose = p.purpose)
)
