-- name: manifest_epochs
-- Per account and purpose, the epochs of consent as known at as-of, seen for retention and for training. A grant inside an
-- epoch closes when that does, so that grants of one closing are one epoch, opened by the first of them.
CREATE TEMPORARY TABLE sweeper_epochs ON COMMIT DROP AS
WITH purposes AS (
    SELECT p.purpose, ARRAY(SELECT jsonb_array_elements_text(p.plans)) AS plans, p.not_before
    FROM jsonb_to_recordset($purposes) AS p (purpose text, plans jsonb, not_before timestamptz)
), memberships AS (
    SELECT i.*,
           min(i.since) FILTER (WHERE NOT i.belongs) OVER (PARTITION BY i.account_id, i.purpose ORDER BY i.since DESC) AS left_at
    FROM (
        SELECT s.account_id, p.purpose, s.since, s.until, COALESCE(s.plan = ANY(p.plans), false) AS belongs
        FROM pg_temp.sweeper_stays s CROSS JOIN purposes p
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
    WHERE $known
    WINDOW later AS (PARTITION BY e.account_id, e.purpose ORDER BY e.recorded_at DESC, e.id DESC)
), grants AS (
    SELECT a.id AS account_id, e.purpose, e.id, e.recorded_at, e.opened, v.side, LEAST(v.withdrawn_at, m.left_at, $closed_at) AS closed
    FROM events e
    JOIN accounts a ON a.id = e.account_id
    JOIN memberships m
      ON m.account_id = a.id AND m.purpose = e.purpose AND m.belongs AND m.since <= e.opened AND e.opened < m.until
    CROSS JOIN LATERAL (
        VALUES ('retention', e.withdrawn_for_retention), ('training', e.withdrawn_for_training)
    ) AS v (side, withdrawn_at)
    WHERE e.granted AND e.opened <= $as_of
)
SELECT g.account_id, g.purpose, g.side, min(g.opened) AS opened, g.closed,
       (array_agg(g.id ORDER BY g.opened, g.recorded_at, g.id))[1] AS event_id
FROM grants g
WHERE g.closed IS NULL OR g.closed > g.opened
GROUP BY g.account_id, g.purpose, g.side, g.closed

-- name: manifest_stays
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

-- name: manifest_accounts
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

-- name: manifest_conversations
-- Per conversation, its due by the rules and the first reason that bars all its messages from training, if any.
CREATE TEMPORARY TABLE sweeper_conversations ON COMMIT DROP AS
WITH ordered AS (  -- by the spelling of ids: what an order may mean is not trained on
    SELECT o.id, min(COALESCE(o.recorded_at, '-infinity')) AS recorded_at
    FROM (
        SELECT c.id, c.created_at, o.recorded_at
        FROM sweeper.erasure_orders o
        JOIN conversations c ON $conversation_spelling = sweeper.spelling(o.conversation_id)
        WHERE (o.account_id IS NULL OR sweeper.spelling(o.account_id) = $account_spelling) AND (o.store IS NULL OR o.store = $store)
        UNION ALL
        SELECT c.id, c.created_at, o.recorded_at
        FROM sweeper.erasure_orders o
        JOIN conversations c ON $account_spelling = sweeper.spelling(o.account_id)
        WHERE o.conversation_id IS NULL AND (o.store IS NULL OR o.store = $store)
    ) AS o
    WHERE o.recorded_at IS NULL OR ($ahead OR o.recorded_at <= $as_of) AND $created_believed AND o.created_at <= o.recorded_at
    GROUP BY o.id
), governing AS (
    SELECT c.id,
           COALESCE(array_agg(s.plan) FILTER (WHERE s.since <= c.last_activity_at), '{}') AS plans,
           bool_or(s.since <= c.created_at) AS covered,
           bool_or((s.plan = ANY($known_plans)) IS NOT TRUE) AS unknown
    FROM conversations c
    JOIN pg_temp.sweeper_stays s ON s.account_id = c.account_id AND s.until > c.created_at
    GROUP BY c.id
), base AS (
    SELECT c.id, c.account_id, c.kind::text AS kind, c.platform::text AS platform, c.incognito, c.zero_retention, c.created_at,
           c.last_activity_at, c.deleted_at, c.restored_at, c.flagged_at,
           COALESCE(g.plans, '{}') AS plans, g.covered, g.unknown,
           a.account_id AS known_account, a.doubtful, a.closed, a.closed_at, a.purpose, a.opened, a.columns AS account_columns,
           $columns AS conversation_columns,
           o.id IS NOT NULL AS ordered, o.recorded_at AS ordered_at, $copies AS copies$epoch_columns
    FROM conversations c
    LEFT JOIN governing g ON g.id = c.id
    LEFT JOIN pg_temp.sweeper_accounts a ON a.account_id = c.account_id
    LEFT JOIN ordered o ON o.id = c.id$epoch_joins
), decided AS (
    SELECT b.*, ($doubt) IS NOT FALSE AS unclassified, $due AS due
    FROM base b
)
SELECT$distinct d.id, d.account_id, d.kind, d.platform, d.due,
       NOT COALESCE(d.created_at > $as_of AND $created_plausible, false) AS present,
       COALESCE($whole AND d.opened < d.last_activity_at, false) AS whole,
       COALESCE($whole AND d.opened < d.last_activity_at AND d.plans <@ $purpose_plans, false) AS whole_plan,
       CASE
           WHEN d.unclassified THEN 'unclassified'
           WHEN d.restored_at IS NOT NULL OR $deleted THEN 'deleted'
           WHEN d.closed THEN 'account_closed'
           WHEN d.ordered THEN 'erasure_order'
           WHEN d.zero_retention THEN 'zero_retention'
           WHEN d.incognito THEN 'incognito'
           WHEN $flagged THEN 'flagged'
           WHEN d.due <= $as_of THEN 'expired'
           WHEN (d.platform = ANY($platforms)) IS NOT TRUE THEN 'platform'
       END AS reason,
       CASE
           WHEN d.unclassified THEN NULL
           WHEN d.restored_at IS NOT NULL OR $deleted THEN LEAST(d.deleted_at, d.restored_at)
           WHEN d.closed THEN d.closed_at
           WHEN d.ordered THEN NULLIF(d.ordered_at, '-infinity')
           WHEN d.zero_retention OR d.incognito THEN NULL
           WHEN $flagged THEN d.flagged_at
           WHEN d.due <= $as_of THEN d.due
       END AS since
FROM decided d

-- name: manifest_reasoned
-- Each message with the first reason that bars it from training, or none: what the conversation says first, then the message.
SELECT m.id, m.conversation_id, m.author::text AS author, m.created_at, c.account_id, c.kind, c.platform, c.due, c.since,
       s.plan, a.event_id, a.opened, a.left_at, a.ended_at, $capped AS capped_at, $body AS body,
       CASE
           WHEN c.id IS NULL OR c.reason = 'unclassified' OR NOT ($believed) THEN 'unclassified'
           WHEN c.reason IS NOT NULL THEN c.reason
           WHEN a.purpose IS NULL THEN 'plan'
           WHEN NOT (
               c.whole_plan
               OR COALESCE(m.created_at > a.opened, false)
               OR COALESCE(s.plan = ANY($purpose_plans), false)
           ) THEN 'plan'
           WHEN a.opened IS NULL THEN 'no_consent'
           WHEN NOT (c.whole OR m.created_at > a.opened) THEN 'before_consent'
           WHEN $capped <= $as_of THEN 'too_old'
       END AS reason
FROM messages m
LEFT JOIN pg_temp.sweeper_conversations c ON c.id = m.conversation_id
LEFT JOIN pg_temp.sweeper_accounts a ON a.account_id = c.account_id
LEFT JOIN pg_temp.sweeper_stays s ON s.account_id = c.account_id AND s.since <= m.created_at AND s.until > m.created_at
WHERE NOT COALESCE($believed AND m.created_at > $as_of, false) AND COALESCE(c.present, true)

-- name: manifest_rows
-- The eligible messages in total order; their text only where it was asked for. Ids become text after the sort: they are
-- shorter before it, and the server writes them while the client reads.
SELECT r.id::text AS message_id,
       r.conversation_id::text AS conversation_id,
       r.account_id::text AS account_id,
       r.created_at,
       r.author,
       r.kind,
       r.plan,
       r.platform,
       r.event_id AS consent_event_id,
       NULLIF(LEAST(r.due, r.capped_at), 'infinity') AS expires_at$text
FROM (
    SELECT r.*
    FROM ($reasoned) AS r
    WHERE r.reason IS NULL
    ORDER BY $by_conversation, r.created_at, $by_message
) AS r

-- name: manifest_counts
-- How many messages there are by the reason that bars them; NULL: eligible.
SELECT r.reason, count(*) AS messages FROM ($reasoned) AS r GROUP BY r.reason

-- name: manifest_load
-- A place for the rows of a manifest, to be checked all at once.
CREATE TEMPORARY TABLE sweeper_manifest (id $type NOT NULL, conversation_id text NOT NULL, expires_at timestamptz) ON COMMIT DROP

-- name: manifest_lost
-- Of the rows of a manifest, those that may not be trained on, with the reason and since when; those recalled before left out if asked.
SELECT l.message_id, l.conversation_id, l.reason, LEAST(COALESCE(l.since, $as_of), $as_of) AS since
FROM (
    SELECT a.id::text AS message_id,
           a.conversation_id,
           CASE WHEN r.reason IS NOT NULL THEN r.reason
                WHEN r.id IS NULL AND t.purged_at IS NOT NULL THEN 'purged'
                WHEN r.id IS NULL THEN 'gone'
                WHEN a.expires_at <= $as_of THEN 'expired' END AS reason,
           CASE WHEN r.reason = 'plan' THEN r.left_at
                WHEN r.reason = 'no_consent' THEN r.ended_at
                WHEN r.reason = 'before_consent' THEN r.opened
                WHEN r.reason = 'too_old' THEN r.capped_at
                WHEN r.reason IS NOT NULL THEN r.since
                WHEN r.id IS NULL THEN t.purged_at
                ELSE a.expires_at END AS since
    FROM pg_temp.sweeper_manifest a
    LEFT JOIN ($reasoned) AS r ON r.id = a.id
    LEFT JOIN (
        SELECT t.record_id, max(t.purged_at) AS purged_at
        FROM sweeper.tombstones t JOIN sweeper.runs n ON n.id = t.run_id
        WHERE n.store = $store AND t.record = 'conversation'
        GROUP BY t.record_id
    ) AS t ON t.record_id = a.conversation_id AND r.id IS NULL
    WHERE r.id IS NULL OR r.reason IS NOT NULL OR a.expires_at <= $as_of
) AS l
WHERE NOT $only_new OR NOT EXISTS (
    SELECT FROM sweeper.revocations v WHERE v.manifest_id = $manifest_id AND v.message_id = l.message_id AND v.found_by = 'recall'
)
