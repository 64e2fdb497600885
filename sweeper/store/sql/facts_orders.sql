-- The erasure orders that may name a record of a batch, however they spell its id. One that spells it in another way than the
-- store may mean something else: it moves no due, as one without a date, and what it may mean is not trained on.
SELECT o.reference, a.id AS account_id, NULL AS conversation_id, o.recorded_at, CASE WHEN o.account_id = a.id THEN o.due_at END AS due_at
FROM unnest(CAST(:accounts AS text[])) AS a (id)
JOIN sweeper.erasure_orders o ON sweeper.spelling(o.account_id) = $account_spelling
WHERE o.conversation_id IS NULL AND (o.store IS NULL OR o.store = :store)
UNION ALL
SELECT o.reference, r.account_id, r.conversation_id, o.recorded_at,
       CASE WHEN o.conversation_id = r.conversation_id AND (o.account_id IS NULL OR o.account_id = r.account_id) THEN o.due_at END
FROM unnest(CAST(:owners AS text[]), CAST(:conversations AS text[])) AS r (account_id, conversation_id)
JOIN sweeper.erasure_orders o ON sweeper.spelling(o.conversation_id) = $conversation_spelling
WHERE (o.account_id IS NULL OR sweeper.spelling(o.account_id) = $owner_spelling) AND (o.store IS NULL OR o.store = :store)
