-- The erasure orders that may name a record of a batch.
SELECT o.reference, o.account_id, o.conversation_id, o.recorded_at, o.due_at
FROM sweeper.erasure_orders o
WHERE (o.account_id = ANY(CAST(:accounts AS text[])) OR o.conversation_id = ANY(CAST(:conversations AS text[])))
  AND (o.store IS NULL OR o.store = :store)
