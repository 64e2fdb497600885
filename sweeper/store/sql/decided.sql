-- What the rules say of each conversation: the first doubt, the plans that govern it, and of the rules that apply the earliest due
-- with its rule; a due of infinity is never. Each LATERAL is one step of `decide`; OFFSET 0: each is evaluated once. Orders are
-- looked for by the spelling of ids: what one may mean is not trained on; it moves the due only where it spells ids as the store.
WITH ordered AS (
    SELECT o.id, min(COALESCE(o.recorded_at, '-infinity')) AS recorded_at, min(o.due_at) FILTER (WHERE $due_believed) AS due_at
    FROM (
        SELECT c.id, c.created_at, o.recorded_at,
               CASE WHEN o.conversation_id = c.id::text AND (o.account_id IS NULL OR o.account_id = c.account_id::text)
                    THEN o.due_at END AS due_at
        FROM sweeper.erasure_orders o
        JOIN conversations c ON $conversation_spelling = sweeper.spelling(o.conversation_id)
        WHERE (o.account_id IS NULL OR sweeper.spelling(o.account_id) = $account_spelling) AND (o.store IS NULL OR o.store = $store)
        UNION ALL
        SELECT c.id, c.created_at, o.recorded_at, CASE WHEN o.account_id = c.account_id::text THEN o.due_at END
        FROM sweeper.erasure_orders o
        JOIN conversations c ON $account_spelling = sweeper.spelling(o.account_id)
        WHERE o.conversation_id IS NULL AND (o.store IS NULL OR o.store = $store)
    ) AS o
    WHERE o.recorded_at IS NULL OR ($ahead OR o.recorded_at <= $as_of) AND $ordered_believed AND o.created_at <= o.recorded_at
    GROUP BY o.id
)
SELECT$distinct c.id, c.account_id, c.kind::text AS kind, c.platform::text AS platform, c.incognito, c.zero_retention,
       c.last_activity_at, c.deleted_at, c.restored_at, c.flagged_at,
       NOT COALESCE(c.created_at > $as_of AND $created_believed, false) AS present,
       h.plans, p.doubt, r.rule, r.due, o.recorded_at AS ordered_at, CASE WHEN NOT h.repeated THEN o.due_at END AS order_due$further
FROM conversations c
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
