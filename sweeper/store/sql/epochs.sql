-- Per account and purpose, the epochs of consent as known at as-of, as each view sees them (policy, Consent). A grant inside an
-- epoch closes when that does, so that grants of one closing are one epoch, opened by the first of them. `entered_at`: since when
-- the account has been on the plans of the purpose.
WITH purposes AS (
    SELECT p.purpose, ARRAY(SELECT jsonb_array_elements_text(p.plans)) AS plans, p.not_before
    FROM jsonb_to_recordset($purposes) AS p (purpose text, plans jsonb, not_before timestamptz)
), memberships AS (
    SELECT i.*,
           min(i.since) FILTER (WHERE NOT i.belongs) OVER (PARTITION BY i.account_id, i.purpose ORDER BY i.since DESC) AS left_at,
           max(i.until) FILTER (WHERE NOT i.belongs) OVER (PARTITION BY i.account_id, i.purpose ORDER BY i.since) AS entered_at
    FROM (
        SELECT s.account_id, p.purpose, s.since, s.until, COALESCE(s.plan = ANY(p.plans), false) AS belongs
        FROM $stays s CROSS JOIN purposes p
    ) AS i
), events AS (
    SELECT e.account_id,
           e.purpose,
           e.id,
           e.granted,
           e.recorded_at,
           GREATEST(e.recorded_at, e.effective_at, p.not_before) AS opened,
           min(LEAST(e.recorded_at, $as_of)) FILTER (WHERE NOT e.granted) OVER later AS withdrawn_for_retention,
           min(LEAST(e.recorded_at, e.effective_at, $as_of)) FILTER (WHERE NOT e.granted) OVER later AS withdrawn_for_training
    FROM consent_events e
    JOIN purposes p ON p.purpose = e.purpose
    WHERE $consent_events AND $known
    WINDOW later AS (PARTITION BY e.account_id, e.purpose ORDER BY e.recorded_at DESC, e.id DESC)
), grants AS (
    SELECT e.account_id, e.purpose, e.id, e.recorded_at, e.opened, m.entered_at, v.side,
           LEAST(v.withdrawn_at, m.left_at, CASE WHEN $closed THEN LEAST(a.closed_at, $as_of) END) AS closed
    FROM events e
    JOIN $accounts a ON a.id = e.account_id
    JOIN memberships m
      ON m.account_id = a.id AND m.purpose = e.purpose AND m.belongs AND m.since <= e.opened AND e.opened < m.until
    CROSS JOIN LATERAL (VALUES $views) AS v (side, withdrawn_at)
    WHERE e.granted AND e.opened <= $as_of
)
SELECT g.account_id, g.purpose, g.side, min(g.opened) AS opened, g.closed, max(g.entered_at) AS entered_at,
       (array_agg(g.id ORDER BY g.opened, g.recorded_at, g.id))[1] AS event_id
FROM grants g
WHERE g.closed IS NULL OR g.closed > g.opened
GROUP BY g.account_id, g.purpose, g.side, g.closed
