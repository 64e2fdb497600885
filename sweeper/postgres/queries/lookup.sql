-- name: lookup_account
-- What the store and the sweeper's tables have of an account, but for its tombstones.
SELECT EXISTS (SELECT FROM accounts a WHERE a.id = CAST(:account AS $account)) AS is_stored,
       (SELECT count(*) FROM conversations c WHERE c.account_id = CAST(:of_conversation AS $of_conversation)) AS conversations,
       (SELECT count(*) FROM feedback f WHERE f.account_id = CAST(:of_feedback AS $of_feedback)) AS feedback,
       (SELECT count(*) FROM sweeper.legal_holds h
        WHERE sweeper.spelling(h.account_id) = sweeper.spelling(:id) AND COALESCE(h.released_at, 'infinity') > :now) AS holds,
       (SELECT count(*) FROM sweeper.erasure_orders o
        WHERE sweeper.spelling(o.account_id) = sweeper.spelling(:id) AND (o.store IS NULL OR o.store = :store)) AS orders

-- name: lookup_keys
-- The ids of an account's conversations or feedback rows, in order. They are found by account first: a planner that expects many
-- of them may otherwise walk all ids of the store in order.
WITH mine AS MATERIALIZED (SELECT r.id FROM $relation r WHERE r.account_id = CAST(:id AS $type))
SELECT m.id::text AS id FROM mine m ORDER BY m.id

-- name: lookup_tombstones
-- What was purged of an account in this store, by kind of record and rule.
SELECT t.record, t.rule, count(*) AS purged, min(t.due_at) AS earliest_due_at, max(t.due_at) AS latest_due_at,
       min(t.purged_at) AS first_at, max(t.purged_at) AS last_at
FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.account_id = :id
GROUP BY t.record, t.rule ORDER BY t.record, t.rule

-- name: lookup_purges
-- The tombstones of an account in this store with a due date in a window, each with its leaf number if it has one.
SELECT t.record, t.record_id, t.rule, t.due_at, t.as_of, t.purged_at, t.run_id, t.policy_digest, l.leaf
FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
LEFT JOIN LATERAL (
    SELECT CASE WHEN t.id - n.first_id < n.length THEN n.first + (t.id - n.first_id) END AS leaf
    FROM sweeper.leaves n WHERE n.source = 'tombstones' AND n.first_id <= t.id ORDER BY n.first_id DESC LIMIT 1
) l ON true
WHERE r.store = :store AND t.account_id = :id
  AND t.due_at >= COALESCE(CAST(:since AS timestamptz), '-infinity') AND t.due_at < COALESCE(CAST(:until AS timestamptz), 'infinity')
ORDER BY t.due_at, t.id

-- name: lookup_named
-- The conversations of an account that a hold or an order may name: those stored, those that its feedback is about, and those
-- purged.
SELECT $conversation AS spelt FROM conversations c WHERE c.account_id = CAST(:of_conversation AS $of_conversation)
UNION
SELECT $about FROM feedback f WHERE f.account_id = CAST(:of_feedback AS $of_feedback) AND f.conversation_id IS NOT NULL
UNION
SELECT sweeper.spelling(t.conversation_id)
FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.account_id = :id AND t.conversation_id IS NOT NULL

-- name: lookup_holds
-- The legal holds that reach an account or any of its conversations, released ones too; one that names nothing reaches everything.
WITH named AS MATERIALIZED ($named), reaching AS (
    SELECT h.id FROM sweeper.legal_holds h WHERE sweeper.spelling(h.account_id) = sweeper.spelling(:id)
    UNION
    SELECT h.id FROM sweeper.legal_holds h WHERE h.account_id IS NULL AND h.conversation_id IS NULL
    UNION
    SELECT h.id FROM named n JOIN sweeper.legal_holds h ON sweeper.spelling(h.conversation_id) = n.spelt
)
SELECT h.matter, COALESCE(sweeper.spelling(h.account_id) = sweeper.spelling(:id), false) AS of_account, h.conversation_id,
       h.placed_at, h.released_at
FROM reaching JOIN sweeper.legal_holds h USING (id)
ORDER BY h.id

-- name: lookup_orders
-- The erasure orders that may mean an account or any of its conversations, withdrawn ones too.
WITH named AS MATERIALIZED ($named), reaching AS (
    SELECT o.id FROM sweeper.erasure_orders o
    WHERE sweeper.spelling(o.account_id) = sweeper.spelling(:id) AND o.conversation_id IS NULL
    UNION
    SELECT o.id FROM named n JOIN sweeper.erasure_orders o ON sweeper.spelling(o.conversation_id) = n.spelt
    WHERE o.account_id IS NULL OR sweeper.spelling(o.account_id) = sweeper.spelling(:id)
)
SELECT o.reference, COALESCE(sweeper.spelling(o.account_id) = sweeper.spelling(:id), false) AS of_account, o.conversation_id,
       o.recorded_at, o.due_at, o.withdrawn_at
FROM reaching JOIN sweeper.erasure_orders o USING (id)
WHERE o.store IS NULL OR o.store = :store
ORDER BY o.id

-- name: lookup_message
-- The conversation of a message.
SELECT m.conversation_id::text AS conversation_id FROM messages m WHERE m.id = CAST(:id AS $type) LIMIT 1

-- name: lookup_feedback
-- The account and the conversation of a feedback row.
SELECT f.account_id::text AS account_id, f.conversation_id::text AS conversation_id FROM feedback f
WHERE f.id = CAST(:id AS $type) LIMIT 1

-- name: lookup_purged
-- The newest tombstone of any record with an id, in any store of this database, or of feedback on a conversation with that id.
SELECT t.record, t.record_id, t.account_id, t.rule, t.purged_at, t.run_id, r.store
FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE t.record_id = :id OR t.conversation_id = :id
ORDER BY r.store = :store DESC, t.record_id = :id DESC, t.id DESC LIMIT 1

-- name: lookup_manifest
-- Whether a manifest of this store has an id.
SELECT EXISTS (SELECT FROM sweeper.manifests m WHERE m.id = :id AND m.store = :store)
