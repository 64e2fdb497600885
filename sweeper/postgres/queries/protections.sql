-- name: hold_place
-- Place a legal hold; the fence makes this wait for the batch at work.
INSERT INTO sweeper.legal_holds (matter, account_id, conversation_id, placed_at)
VALUES (:matter, :account_id, :conversation_id, :placed_at)
RETURNING id, matter, account_id, conversation_id, placed_at, released_at

-- name: hold_release
-- Release the holds of a matter, or one hold, that are not released yet.
UPDATE sweeper.legal_holds SET released_at = :released_at
WHERE released_at IS NULL AND (matter = :matter OR id = :id)
RETURNING id, matter, account_id, conversation_id, placed_at, released_at

-- name: hold_list
-- The legal holds, those in force first.
SELECT id, matter, account_id, conversation_id, placed_at, released_at
FROM sweeper.legal_holds WHERE :all OR released_at IS NULL
ORDER BY released_at IS NOT NULL, id

-- name: order_add
-- Record an erasure order.
INSERT INTO sweeper.erasure_orders (reference, account_id, conversation_id, recorded_at, due_at, store)
VALUES (:reference, :account_id, :conversation_id, :recorded_at, :due_at, :store)
RETURNING id, reference, account_id, conversation_id, recorded_at, due_at, withdrawn_at

-- name: order_withdraw
-- Withdraw the orders of a reference, or one order, that are not withdrawn yet, and return the due dates that they had; the fence
-- makes this wait for the batch at work.
WITH found AS (
    SELECT o.id, o.due_at FROM sweeper.erasure_orders o
    WHERE o.withdrawn_at IS NULL AND (o.reference = :reference OR o.id = :id) AND (o.store IS NULL OR o.store = :store)
    FOR UPDATE
)
UPDATE sweeper.erasure_orders o SET withdrawn_at = :withdrawn_at
FROM found f WHERE o.id = f.id
RETURNING o.id, o.reference, o.account_id, o.conversation_id, o.recorded_at, f.due_at, o.withdrawn_at

-- name: order_list
-- The erasure orders, newest first.
SELECT id, reference, account_id, conversation_id, recorded_at, due_at, withdrawn_at FROM sweeper.erasure_orders
WHERE store IS NULL OR store = :store
ORDER BY id DESC

-- name: hold_scope
-- Whether an account is known, and how many conversations belong to it, are the one named, and are both; NULL names nothing.
SELECT a.of_account,
       c.of_conversation,
       c.of_both,
       a.of_account > 0 OR EXISTS (SELECT FROM accounts known WHERE known.id = CAST(:account AS $account)) AS account_known
FROM (SELECT count(*) AS of_account FROM conversations WHERE account_id = CAST(:account AS $owner)) a,
     (SELECT count(*) AS of_conversation, count(*) FILTER (WHERE account_id = CAST(:account AS $owner)) AS of_both
      FROM conversations WHERE id = CAST(:conversation AS $conversation)) c

-- name: hold_scope_feedback
-- How many feedback rows belong to an account, to a conversation, and to both; NULL names nothing.
SELECT count(*) FILTER (WHERE account_id = CAST(:account AS $account)) AS of_account,
       count(*) FILTER (WHERE conversation_id = CAST(:conversation AS $conversation)) AS of_conversation,
       count(*) FILTER (WHERE account_id = CAST(:account AS $account)
                          AND conversation_id = CAST(:conversation AS $conversation)) AS of_both
FROM feedback WHERE account_id = CAST(:account AS $account) OR conversation_id = CAST(:conversation AS $conversation)

-- name: known_protections
-- The legal holds with their releases, and the erasure orders with whether they are withdrawn.
SELECT 'hold' AS kind, h.matter AS name, h.account_id, h.conversation_id, h.released_at, false AS is_withdrawn
FROM sweeper.legal_holds h
UNION ALL
SELECT 'order', o.reference, o.account_id, o.conversation_id, NULL, o.withdrawn_at IS NOT NULL FROM sweeper.erasure_orders o

-- name: unmatched_holds
-- The legal holds in force that name something, or of these only the ones with the given ids.
SELECT h.id, h.account_id, h.conversation_id, CAST(NULL AS text) AS owner
FROM sweeper.legal_holds h
WHERE COALESCE(h.released_at, 'infinity') > :now AND (h.account_id IS NOT NULL OR h.conversation_id IS NOT NULL)
  AND (CAST(:ids AS bigint[]) IS NULL OR h.id = ANY(CAST(:ids AS bigint[])))

-- name: unmatched_orders
-- The erasure orders not withdrawn that name something, or of these only the ones with the given ids; owner is the account named beside a
-- conversation.
SELECT o.id, CASE WHEN o.conversation_id IS NULL THEN o.account_id END AS account_id, o.conversation_id,
       CASE WHEN o.conversation_id IS NOT NULL THEN o.account_id END AS owner
FROM sweeper.erasure_orders o
WHERE o.withdrawn_at IS NULL AND (o.store IS NULL OR o.store = :store) AND (o.account_id IS NOT NULL OR o.conversation_id IS NOT NULL)
  AND (CAST(:ids AS bigint[]) IS NULL OR o.id = ANY(CAST(:ids AS bigint[])))

-- name: unmatched_carried_out
-- An addition to unmatched_orders: leave out orders whose records were purged.
AND NOT EXISTS (SELECT FROM sweeper.tombstones t WHERE t.record_id = o.conversation_id AND t.record <> 'redaction')
  AND NOT EXISTS (
      SELECT FROM sweeper.tombstones t WHERE o.conversation_id IS NULL AND t.account_id = o.account_id AND t.record <> 'redaction'
  )

-- name: unmatched
-- Of the given holds or orders, those that match nothing in the store. The spelling of each id is computed once.
WITH named AS MATERIALIZED (
    SELECT p.*, $spelt FROM ($protections) AS p
)
SELECT p.id
FROM named p
WHERE NOT EXISTS (SELECT FROM accounts r WHERE $account)
  AND NOT EXISTS (SELECT FROM conversations r WHERE $conversation)
  AND NOT EXISTS (SELECT FROM conversations r WHERE $of_account)
  AND NOT EXISTS (SELECT FROM feedback r WHERE $feedback)
  AND NOT EXISTS (SELECT FROM feedback r WHERE $feedback_of_account)
ORDER BY p.id
