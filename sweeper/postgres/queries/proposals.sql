-- name: account_range
-- The key at which the next range of accounts ends.
SELECT a.id::text AS id FROM accounts a WHERE a.id IS NOT NULL AND $after ORDER BY a.id OFFSET :accounts LIMIT 1

-- name: order_range
-- The last name of a range of what erasure orders name whose date has come; no row: the range has no end.
SELECT o.$named AS name
FROM sweeper.erasure_orders o
WHERE $orders AND o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store)
ORDER BY o.$named
OFFSET :names LIMIT 1

-- name: propose
-- Conversations of a range that may be due: what any search finds, once each, in the order of their keys. A row under a hold that
-- is known is marked; each row asks the indexes of the holds, so that the cost follows the rows and not the holds. ORDER BY: a
-- planner that believes most holds to name one account would read the table until it meets one.
WITH searched AS MATERIALIZED (
$histories
$searches
), page AS MATERIALIZED (
    SELECT p.* FROM searched p
    WHERE p.id IS NOT NULL AND $others $after
    ORDER BY p.account_id, p.id
    LIMIT :limit
)
SELECT p.account_id::text AS account_id,
       p.id::text AS id,
       p.last_activity_at,
       p.deleted_at,
       COALESCE(
           (SELECT true FROM sweeper.legal_holds h
            WHERE h.account_id IS NULL AND h.conversation_id IS NULL
              AND COALESCE(h.released_at, 'infinity') > :as_of AND (h.placed_at IS NULL OR h.placed_at <= :as_of)
            ORDER BY COALESCE(h.released_at, 'infinity') LIMIT 1),
           (SELECT true FROM sweeper.legal_holds h
            WHERE sweeper.spelling(h.account_id) = $account_spelling
              AND COALESCE(h.released_at, 'infinity') > :as_of AND (h.placed_at IS NULL OR h.placed_at <= :as_of)
            ORDER BY COALESCE(h.released_at, 'infinity') LIMIT 1),
           (SELECT true FROM sweeper.legal_holds h
            WHERE sweeper.spelling(h.conversation_id) = $conversation_spelling
              AND COALESCE(h.released_at, 'infinity') > :as_of AND (h.placed_at IS NULL OR h.placed_at <= :as_of)
            ORDER BY COALESCE(h.released_at, 'infinity') LIMIT 1),
           false
       ) AS held
FROM page p
ORDER BY p.account_id, p.id

-- name: propose_histories
-- Per account of the range: its stays on plans, its epochs of consent, and the gaps between them, in which `opened` is NULL. A
-- proposal only: what is found here is decided again from the facts.
WITH members AS (
    SELECT a.id, a.created_at, a.closed_at FROM accounts a WHERE $accounts
), stays AS (
$stays
), epochs AS (
$epochs
), segments AS (
    SELECT e.account_id, e.purpose, e.opened, e.closed, e.entered_at, e.opened AS since, COALESCE(e.closed, 'infinity') AS until
    FROM epochs e
    UNION ALL
    SELECT e.account_id, e.purpose, NULL, NULL, NULL,
           COALESCE(lag(e.closed) OVER (PARTITION BY e.account_id, e.purpose ORDER BY e.opened), '-infinity'), e.opened
    FROM epochs e
    UNION ALL
    SELECT e.account_id, e.purpose, NULL, NULL, NULL, max(e.closed), 'infinity'
    FROM epochs e
    GROUP BY e.account_id, e.purpose
    HAVING bool_and(e.closed IS NOT NULL)
    UNION ALL
    SELECT m.id, p.purpose, NULL, NULL, NULL, '-infinity', 'infinity'
    FROM members m CROSS JOIN unnest($purposes) AS p (purpose)
    WHERE NOT EXISTS (SELECT 1 FROM epochs e WHERE e.account_id = m.id AND e.purpose = p.purpose)
)

-- name: propose_by_conversation
-- One rule that needs nothing but the conversation's own row.
SELECT c.account_id, c.id, c.last_activity_at, c.deleted_at
FROM conversations c
WHERE $conversations AND $anchor <= $horizon AND $conditions

-- name: propose_by_account
-- One rule whose anchor, condition or period is the account's: its accounts first, then their conversations.
SELECT c.account_id, c.id, c.last_activity_at, c.deleted_at
FROM accounts a
CROSS JOIN LATERAL (SELECT k.* FROM conversations k WHERE k.account_id = a.id OFFSET 0) AS c
WHERE $accounts AND $anchor <= $horizon AND $conditions

-- name: propose_by_history
-- One rule with conditions on plans or consent: per account, the span of last activities in which it may apply.
SELECT c.account_id, c.id, c.last_activity_at, c.deleted_at
FROM (
    SELECT s.account_id, min(s.since) AS since, max(s.until) AS until
    FROM stays s
    WHERE $plans
    GROUP BY s.account_id
) AS stay
JOIN segments AS epoch ON epoch.account_id = stay.account_id AND epoch.purpose = $purpose
$join_accounts
CROSS JOIN LATERAL (
    SELECT k.*
    FROM conversations k
    WHERE k.account_id = stay.account_id
      AND k.last_activity_at >= GREATEST(stay.since, epoch.since)
      AND k.last_activity_at <= LEAST(epoch.until, $horizon)
    OFFSET 0
) AS c
WHERE GREATEST(stay.since, epoch.since) <= LEAST(epoch.until, $horizon)
  AND c.created_at <= stay.until
  AND $conditions

-- name: propose_by_order
-- Conversations that an erasure order of a range of orders names whose date has come; each name is looked up once.
SELECT c.account_id, c.id, c.last_activity_at, c.deleted_at
FROM (
    SELECT DISTINCT o.$named AS name
    FROM sweeper.erasure_orders o
    WHERE $orders AND o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store)
) AS o
JOIN conversations c ON $names

-- name: propose_feedback
-- Feedback rows that may be due, in the order of their keys.
SELECT f.id::text AS id
FROM (
$search
) AS f
WHERE f.id IS NOT NULL AND $after
ORDER BY f.id
LIMIT :limit

-- name: propose_feedback_by_order
-- Feedback rows that an erasure order names whose date has come, and that are not found by their age.
SELECT f.id FROM sweeper.erasure_orders o JOIN feedback f ON $names_conversation
WHERE o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store) AND ($aged) IS NOT TRUE
UNION
SELECT f.id FROM sweeper.erasure_orders o JOIN feedback f ON $names_account
WHERE o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store) AND o.conversation_id IS NULL AND ($aged) IS NOT TRUE
