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
