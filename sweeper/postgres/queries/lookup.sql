-- name: lookup_account
-- What the store and the sweeper's tables have of an account, but for its tombstones.
SELECT EXISTS (SELECT FROM accounts a WHERE a.id = CAST(:account AS $account)) AS is_stored,
       (SELECT count(*) FROM conversations c WHERE c.account_id = CAST(:of_conversation AS $of_conversation)) AS conversations,
       (SELECT count(*) FROM feedback f WHERE f.account_id = CAST(:of_feedback AS $of_feedback)) AS feedback,
       (SELECT count(*) FROM sweeper.legal_holds h
        WHERE sweeper.spelling(h.account_id) = sweeper.spelling(:id) AND COALESCE(h.released_at, 'infinity') > :now) AS holds,
       (SELECT count(*) FROM sweeper.erasure_orders o
        WHERE sweeper.spelling(o.account_id) = sweeper.spelling(:id) AND (o.store IS NULL OR o.store = :store)) AS orders

-- name: lookup_conversations
-- The first conversations of an account.
SELECT c.id::text AS id FROM conversations c WHERE c.account_id = CAST(:id AS $type) ORDER BY c.id LIMIT :limit

-- name: lookup_tombstones
-- What was purged of an account in this store, by kind of record and rule.
SELECT t.record, t.rule, count(*) AS purged, max(t.purged_at) AS last_at
FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.account_id = :id
GROUP BY t.record, t.rule ORDER BY t.record, t.rule

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
ORDER BY r.store = :store DESC, t.record = 'redaction', t.record_id = :id DESC, t.id DESC LIMIT 1

-- name: lookup_manifest
-- Whether a manifest of this store has an id.
SELECT EXISTS (SELECT FROM sweeper.manifests m WHERE m.id = :id AND m.store = :store)
