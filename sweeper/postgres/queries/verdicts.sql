-- name: stays
-- Per account, the plans in force as known at as-of, each from its start to the next one's start (policy, Plan in force).
SELECT a.id AS account_id,
       c.plan,
       CASE WHEN lag(c.effective_at) OVER w IS NULL AND $created_trusted
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

-- name: epochs
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

-- name: owners
-- Per account, what all its conversations share: its timeline (in `starts`, when each plan came into force, in order; in `plans`,
-- which) and the first doubt about its histories.
SELECT a.id AS account_id,
       a.closed_at,
       t.starts,
       t.plans,
       CASE
           WHEN e.account_id IS NOT NULL THEN 'consent_event'
           WHEN p.account_id IS NOT NULL THEN 'plan_change'
           WHEN NOT COALESCE($closed_trusted, true) THEN 'closed_at'
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
    WHERE $uses_plans AND (p.id IS NULL OR p.effective_at IS NULL OR p.effective_at <> '-infinity' AND NOT $change_trusted)
) AS p ON p.account_id = a.id
LEFT JOIN (
    SELECT DISTINCT e.account_id
    FROM consent_events e
    WHERE (e.purpose IS NULL OR e.purpose = ANY($purpose_names))
      AND (e.id IS NULL OR e.purpose IS NULL OR e.granted IS NULL OR e.recorded_at IS NULL
           OR NOT $recorded_trusted OR NOT $effective_trusted)
) AS e ON $uses_purposes AND e.account_id = a.id

-- name: decided
-- What the rules say of each conversation: the first doubt, the plans that govern it, and of the rules that apply the earliest due
-- with its rule; a due of infinity is never. Each LATERAL is one step of `decide`; OFFSET 0: each is evaluated once. Orders are
-- looked for by the spelling of ids: what one may mean is not trained on; it moves the due only where it spells ids as the store.
WITH ordered AS (
    SELECT o.id, min(COALESCE(o.recorded_at, '-infinity')) AS recorded_at, min(o.due_at) FILTER (WHERE $due_trusted) AS due_at
    FROM (
        SELECT c.id, c.created_at, o.recorded_at,
               CASE WHEN o.conversation_id = c.id::text AND (o.account_id IS NULL OR o.account_id = c.account_id::text)
                    THEN o.due_at END AS due_at
        FROM sweeper.erasure_orders o
        JOIN $conversations c ON $conversation_spelling = sweeper.spelling(o.conversation_id)
        WHERE (o.account_id IS NULL OR sweeper.spelling(o.account_id) = $account_spelling) AND (o.store IS NULL OR o.store = $store)
        UNION ALL
        SELECT c.id, c.created_at, o.recorded_at, CASE WHEN o.account_id = c.account_id::text THEN o.due_at END
        FROM sweeper.erasure_orders o
        JOIN $conversations c ON $account_spelling = sweeper.spelling(o.account_id)
        WHERE o.conversation_id IS NULL AND (o.store IS NULL OR o.store = $store)
    ) AS o
    WHERE o.recorded_at IS NULL OR ($ahead OR o.recorded_at <= $as_of) AND $ordered_trusted AND o.created_at <= o.recorded_at
    GROUP BY o.id
)
SELECT$distinct c.id, c.account_id, c.kind::text AS kind, c.platform::text AS platform, c.incognito, c.zero_retention,
       c.last_activity_at, c.deleted_at, c.restored_at, c.flagged_at,
       (c.created_at > $as_of AND $created_trusted) IS NOT TRUE AS present,
       h.plans, p.doubt, r.rule, r.due, o.recorded_at AS ordered_at, CASE WHEN NOT h.repeated THEN o.due_at END AS order_due$further
FROM $conversations c
LEFT JOIN accounts a ON a.id = c.account_id
LEFT JOIN $owners k ON k.account_id = a.id
LEFT JOIN ordered o ON o.id = c.id$epochs
CROSS JOIN LATERAL (
    SELECT k.plans[GREATEST(width_bucket(c.created_at, k.starts), 1) : width_bucket(c.last_activity_at, k.starts)] AS plans,
           $repeated AS repeated
    OFFSET 0
) AS h
CROSS JOIN LATERAL (SELECT CASE $doubts END AS doubt, h.repeated OR $flag_doubt AS no_rule OFFSET 0) AS d
CROSS JOIN LATERAL (SELECT COALESCE(d.doubt, $period_doubt) AS doubt OFFSET 0) AS p
CROSS JOIN LATERAL (SELECT $dues OFFSET 0) AS t
CROSS JOIN LATERAL (SELECT LEAST($names) AS due OFFSET 0) AS l
CROSS JOIN LATERAL (SELECT l.due, CASE l.due $rules END AS rule) AS r

-- name: ruled
-- The rule and the due of each conversation after floors and erasure orders; a due of NULL is none, or never.
SELECT v.*,
       CASE
           WHEN $order_due < COALESCE(m.due, 'infinity') THEN 'erasure_order'
           WHEN m.due > v.due THEN CASE m.due $floors END
           WHEN v.due IS NOT NULL THEN v.rule
           WHEN v.doubt IS NOT NULL THEN 'unclassified'
       END AS last_rule,
       NULLIF(LEAST(m.due, $order_due), 'infinity') AS last_due
FROM (
$decided
) AS v
CROSS JOIN LATERAL (SELECT $least OFFSET 0) AS f
CROSS JOIN LATERAL (SELECT CASE WHEN v.due IS NOT NULL THEN GREATEST(v.due$names) END AS due) AS m
